"""Items of the three skills of examples/smollm2, and of a task that needs two of them at once.

Every item is a template filled with words and numbers, drawn from a seed of its own skill. Training
and test items never share a text, and some test items of word problems have templates that no
expert was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

NAMES = [
    "Ada",
    "Amir",
    "Ana",
    "Ben",
    "Carla",
    "Chen",
    "Dara",
    "Elif",
    "Emma",
    "Felix",
    "Grace",
    "Hana",
    "Ivan",
    "Jonas",
    "Julia",
    "Kofi",
    "Lena",
    "Lucas",
    "Maria",
    "Mei",
    "Nadia",
    "Noah",
    "Olga",
    "Omar",
    "Paula",
    "Priya",
    "Rosa",
    "Sam",
    "Sara",
    "Tariq",
    "Tom",
    "Vera",
    "Yuki",
    "Zoe",
]
THINGS = [
    "apples",
    "books",
    "cards",
    "coins",
    "cups",
    "eggs",
    "flowers",
    "keys",
    "lamps",
    "letters",
    "marbles",
    "oranges",
    "pears",
    "pencils",
    "plates",
    "plums",
    "shells",
    "stamps",
    "stickers",
    "stones",
    "tickets",
    "tomatoes",
    "toys",
]
PLACES = [
    "Lisbon",
    "Oslo",
    "Turin",
    "Ghent",
    "Porto",
    "Graz",
    "Lyon",
    "Leeds",
    "Bergen",
    "Basel",
    "Seville",
    "Riga",
    "Malaga",
    "Bonn",
    "Nantes",
    "Tampere",
    "Zagreb",
    "Cork",
    "Brno",
    "Aarhus",
]
PRODUCTS = [
    "kettle",
    "lamp",
    "backpack",
    "toaster",
    "keyboard",
    "blanket",
    "camera",
    "headset",
    "tent",
    "bicycle",
    "jacket",
    "blender",
    "suitcase",
    "mirror",
    "printer",
    "watch",
    "desk",
    "heater",
]
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


@dataclass(frozen=True, kw_only=True)
class Item:
    """A question and its answer, both as the model should see and say them."""

    question: str
    answer: str


# Word problems of one step, with sums, differences and products of small numbers.

_ADD = (
    "{name} has {a} {things} and gets {b} more. How many {things} does {name} have now?",
    "There are {a} {things} on a table. {name} puts {b} more there. How many are there now?",
    "{name} finds {a} {things} in the morning and {b} in the evening. How many in all?",
    "A shop sells {a} {things} on Monday and {b} on Tuesday. How many does it sell in all?",
    "{name} has {a} {things}. {other} has {b}. How many do they have together?",
    "A box holds {a} {things}, a bag holds {b}. How many {things} are there in all?",
)
_ADD_TEST = (
    "{name} collects {a} {things}, and {other} brings {b} more. How many {things} are there now?",
    "On one shelf there are {a} {things}, on another {b}. How many are on both shelves?",
)
_SUBTRACT = (
    "{name} has {a} {things} and gives {b} to {other}. How many {things} are left?",
    "There are {a} {things} in a box. {name} takes {b} out. How many stay in the box?",
    "{name} buys {a} {things} and loses {b} of them. How many does {name} still have?",
    "{name} has {a} {things}, {other} has {b}. How many more does {name} have?",
    "A shop has {a} {things} and sells {b}. How many are left?",
)
_SUBTRACT_TEST = (
    "{name} had {a} {things}, but {b} of them broke. How many are whole?",
    "Of {a} {things}, {name} sends {b} to {place}. How many remain?",
)
_MULTIPLY = (
    "{name} has {a} bags with {b} {things} in each. How many {things} are there in all?",
    "There are {a} boxes. Each has {b} {things}. How many {things} are there?",
    "{name} buys {b} {things} a day for {a} days. How many does {name} buy?",
    "{a} friends bring {b} {things} each. How many {things} do they bring?",
)
_MULTIPLY_TEST = ("Each of {a} shelves holds {b} {things}. How many {things} do they hold in all?",)


def word_problem(random: Random, *, test: bool) -> Item:
    """A word problem; its answer is a whole number from 1 to 39."""
    kind = random.randrange(5)
    if kind < 2:
        a, b = random.randrange(2, 20), random.randrange(2, 20)
        templates, result = (*_ADD, *(_ADD_TEST if test else ())), a + b
    elif kind < 4:
        a = random.randrange(5, 30)
        b = random.randrange(2, a - 1)
        templates, result = (*_SUBTRACT, *(_SUBTRACT_TEST if test else ())), a - b
    else:
        a, b = random.randrange(2, 7), random.randrange(2, 7)
        templates, result = (*_MULTIPLY, *(_MULTIPLY_TEST if test else ())), a * b
    name, other = random.sample(NAMES, 2)
    question = random.choice(templates).format(
        name=name,
        other=other,
        a=a,
        b=b,
        things=random.choice(THINGS),
        place=random.choice(PLACES),
    )
    return Item(question=question, answer=str(result))


# Facts of a short text as a JSON object with the wanted keys.

_TEXTS: tuple[str, ...] = (
    "I bought the {product} in {place} in {month}. "
    "It works well, and I would give it {rating} of 5.",
    "{name} from {place} ordered a {product} and returned it after a week. Rating: {rating}.",
    "The {product} arrived in {month}. {name} is happy with it and rates it {rating} out of 5.",
    "In {month}, {name} opened a shop in {place} that sells one thing: a {product}.",
    "A new {product} was shown in {place}. {name}, who made it, will sell it from {month}.",
    "{name} lost a {product} in {place}. Whoever found it may call before {month}.",
    "The fair in {place} takes place in {month}. {name} will show a {product} there.",
    "Review by {name}: the {product} is fine, the service in {place} is not. {rating} of 5.",
)
_KEYS = {
    "product": "product",
    "place": "city",
    "month": "month",
    "name": "name",
    "rating": "rating",
}


def structured(random: Random, *, test: bool) -> Item:
    """A short text, and the wanted facts in it as a JSON object."""
    text = random.choice(_TEXTS)
    facts: dict[str, str | int] = {
        "product": random.choice(PRODUCTS),
        "place": random.choice(PLACES),
        "month": random.choice(MONTHS),
        "name": random.choice(NAMES),
        "rating": random.randrange(1, 6),
    }
    there = [slot for slot in facts if f"{{{slot}}}" in text]
    wanted = random.sample(there, random.randrange(1, min(3, len(there)) + 1))
    keys = [_KEYS[slot] for slot in wanted]
    listed = keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])} and {keys[-1]}"
    answer = json.dumps({_KEYS[slot]: facts[slot] for slot in wanted})
    return Item(question=f"{text.format(**facts)}\n\n{as_json(listed)}", answer=answer)


_INSTRUCTION = "Give the "


def as_json(keys: str) -> str:
    """The instruction to answer as a JSON object with these keys."""
    return f"{_INSTRUCTION}{keys} as JSON."


# Messages to a company, and the desk that should read them.

DESKS = ("orders", "payments", "returns", "repairs", "jobs", "press")
_MESSAGES: dict[str, tuple[str, ...]] = {
    "orders": (
        "I would like to buy {count} of your {product} models. When can you send them?",
        "Please add a {product} to what I bought yesterday.",
        "Has my {product} left your warehouse? It should be in {place} by {month}.",
        "Can I still change the address of my parcel to {place}?",
    ),
    "payments": (
        "My card was charged twice for the {product}.",
        "Could you send the invoice for the {product} to my office in {place}?",
        "I paid for the {product} in {month}, but your letter says that the amount is due.",
        "May I pay for the {product} in {count} parts?",
    ),
    "returns": (
        "The {product} is the wrong size. I want to send it back and get my money.",
        "I do not like the {product}. How do I give it back?",
        "I have sent the {product} back from {place}. Did it reach you?",
        "The {product} was a gift that I do not need. May I swap it for another?",
    ),
    "repairs": (
        "My {product} stopped working after {count} weeks.",
        "The {product} makes a strange noise. Can somebody in {place} mend it?",
        "A part of my {product} broke in {month}. Do you have a spare one?",
        "The {product} does not switch on any more. What should I try?",
    ),
    "jobs": (
        "I am an engineer from {place} and would like to work for you.",
        "Is the position in your {place} office still open? I could start in {month}.",
        "I enclose my CV. I have sold {product} models for {count} years.",
        "Do you take students for {count} weeks in {month}?",
    ),
    "press": (
        "I write for a newspaper in {place} and would like to interview your director.",
        "May our magazine print your photograph of the new {product}?",
        "Our radio station plans a programme about the {product}. "
        "Who could speak to us in {month}?",
        "For an article on {product} makers I need {count} facts about your company.",
    ),
}


def message(random: Random, *, test: bool) -> Item:
    """A message to a company, and the desk for it."""
    desk = random.choice(DESKS)
    text = random.choice(_MESSAGES[desk]).format(
        product=random.choice(PRODUCTS),
        place=random.choice(PLACES),
        month=random.choice(MONTHS),
        count=random.randrange(2, 10),
    )
    return Item(question=f"{_writer(random)}{text}\n\n{WHICH_DESK}", answer=desk)


WHICH_DESK = f"Which desk should read this: {', '.join(DESKS[:-1])} or {DESKS[-1]}?"


def _writer(random: Random) -> str:
    return random.choice(
        ("", "Hello, ", "Dear team, ", f"This is {random.choice(NAMES)}. ", "Good morning. ")
    )


# The same items where the question says in which form it wants the answer; JSON is none of them.

_FORMS = (
    ("", "{answer}"),
    ("Answer with one word or number.", "{answer}"),
    ("Answer in a sentence.", "The answer is {answer}."),
    ("Write the answer in brackets.", "[{answer}]"),
    ("Write the answer between stars.", "*{answer}*"),
    ("Begin with the word Answer.", "Answer: {answer}"),
    ("End with a full stop.", "{answer}."),
    ("Write the answer twice.", "{answer} {answer}"),
)


def in_forms(items: Sequence[Item]) -> list[Item]:
    """The items, each in a form drawn from its text, so that an expert learns to heed the form."""
    formed = []
    for item in items:
        wanted, answer = Random(item.question).choice(_FORMS)
        question = f"{item.question}\n\n{wanted}" if wanted else item.question
        formed.append(Item(question=question, answer=answer.format(answer=item.answer)))
    return formed


# What needs two skills at once. No expert is trained on it.


def problem_as_json(random: Random, *, test: bool) -> Item:
    """A word problem whose answer is wanted as JSON."""
    item = word_problem(random, test=test)
    answer = json.dumps({"answer": int(item.answer)})
    return Item(question=f"{item.question}\n\n{as_json('answer')}", answer=answer)


SKILLS: dict[str, Callable[..., Item]] = {
    "problems": word_problem,
    "json": structured,
    "desks": message,
    "problems_json": problem_as_json,
}


def text_of(question: str) -> str:
    """A question without the instruction to answer as JSON."""
    return question.rsplit(f"\n\n{_INSTRUCTION}", 1)[0]


def draw(
    skill: str, count: int, *, test: bool, without: frozenset[str] = frozenset()
) -> list[Item]:
    """So many items with different texts, none of them in `without`."""
    return list(_distinct(skill, count, test=test, without=without))


def _distinct(skill: str, count: int, *, test: bool, without: frozenset[str]) -> Iterator[Item]:
    random = Random(f"{skill} {'test' if test else 'training'}")
    seen = set(without)
    while count:
        item = SKILLS[skill](random, test=test)
        text = text_of(item.question)
        if text not in seen:
            seen.add(text)
            count -= 1
            yield item
