"use strict";
(() => {
  const narrow = window.matchMedia("(max-width: 560px)");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const figures = JSON.parse(document.getElementById("figures").textContent);

  // Colours are CSS variables of the page; plotly needs their values in the current scheme.
  const painted = (value, style) => {
    if (typeof value === "string") {
      const name = /^var\((--[\w-]+)\)$/.exec(value);
      return name ? style.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map((entry) => painted(entry, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, painted(v, style)]));
    }
    return value;
  };

  const draw = () => {
    const style = getComputedStyle(document.documentElement);
    figures.forEach((spec, place) => {
      const layout = { ...spec.layout, ...(narrow.matches ? spec.narrow : {}) };
      Plotly.react(`figure-${place}`, painted(spec.data, style), painted(layout, style), {
        displayModeBar: false, responsive: true, showTips: false, doubleClick: false,
      });
    });
  };
  draw();
  dark.addEventListener("change", draw);
  narrow.addEventListener("change", draw);

  document.querySelectorAll(".block").forEach((block) => {
    const button = block.querySelector("button");
    const text = block.querySelector("pre");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
      } catch {
        // Some browsers do not let a file copy. Then select the text, so that a key press copies it.
        window.getSelection().selectAllChildren(text);
        button.textContent = "Selected";
        return;
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  });
})();
