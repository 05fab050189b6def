// What every view takes: templates, hooks and signals.
import htm from "../vendor/htm.js";
import { Fragment, createElement, render } from "../vendor/preact.js";
import {
  useCallback,
  useEffect,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
} from "../vendor/preact-hooks.js";
import { computed, effect, signal } from "../vendor/signals.js";

export const html = htm.bind(createElement);
export {
  Fragment,
  computed,
  effect,
  render,
  signal,
  useCallback,
  useEffect,
  useLayoutEffect,
  useMemo,
  useRef,
  useState,
};
