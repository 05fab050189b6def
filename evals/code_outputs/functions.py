"""Small functions whose values are asked for; written for this task, and for reading.

A function's parameter is named after the kind of value it is called with (`generate.py`).
"""

# Models are shown this code as it stands: written the way people write it, without docstrings.
# ruff: noqa: D103, B905, RUF007

from __future__ import annotations


def merge_neighbours(numbers):
    out = []
    for number in numbers:
        if out and out[-1] == number:
            out[-1] += number
        else:
            out.append(number)
    return out


def running_largest(numbers):
    best = numbers[0]
    out = []
    for number in numbers:
        best = max(best, number)
        out.append(best)
    return out


def alternate_sum(numbers):
    total = 0
    for place, number in enumerate(numbers):
        total += number if place % 2 == 0 else -number
    return total


def halves_swapped(numbers):
    middle = len(numbers) // 2
    return numbers[middle:] + numbers[:middle]


def gaps(numbers):
    ordered = sorted(set(numbers))
    return [right - left for left, right in zip(ordered, ordered[1:])]


def even_then_odd(numbers):
    return [n for n in numbers if n % 2 == 0] + [n for n in numbers if n % 2]


def counts(numbers):
    out = {}
    for number in numbers:
        out[number] = out.get(number, 0) + 1
    return out


def second_smallest(numbers):
    ordered = sorted(set(numbers))
    return ordered[1] if len(ordered) > 1 else None


def places_of_rises(numbers):
    return [i for i in range(1, len(numbers)) if numbers[i] > numbers[i - 1]]


def steps_to_one(number):
    steps = 0
    while number != 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        steps += 1
    return steps


def digits_reversed(number):
    out = 0
    while number:
        out = out * 10 + number % 10
        number //= 10
    return out


def smallest_divisor(number):
    divisor = 2
    while divisor * divisor <= number:
        if number % divisor == 0:
            return divisor
        divisor += 1
    return number


def in_base_three(number):
    digits = ""
    while number:
        digits = str(number % 3) + digits
        number //= 3
    return digits or "0"


def digit_sum_twice(number):
    for _ in range(2):
        number = sum(int(digit) for digit in str(number))
    return number


def fizz(number):
    return ["fizz" if n % 3 == 0 else n for n in range(1, number % 8 + 2)]


def caesar(text):
    return "".join(chr((ord(c) - 97 + 3) % 26 + 97) if c.isalpha() else c for c in text)


def run_lengths(text):
    out = []
    for letter in text:
        if out and out[-1][0] == letter:
            out[-1] = (letter, out[-1][1] + 1)
        else:
            out.append((letter, 1))
    return out


def without_vowels(text):
    return "".join(letter for letter in text if letter not in "aeiou")


def mirrored(text):
    return text + text[-2::-1]


def last_places(text):
    return {letter: place for place, letter in enumerate(text)}


def every_second_raised(text):
    return "".join(c.upper() if place % 2 else c for place, c in enumerate(text))


def is_almost_palindrome(text):
    differing = sum(left != right for left, right in zip(text, reversed(text)))
    return differing <= 2


def first_repeated(text):
    seen = set()
    for letter in text:
        if letter in seen:
            return letter
        seen.add(letter)
    return None


def by_length(words):
    out = {}
    for word in words:
        out.setdefault(len(word), []).append(word)
    return out


def initials(words):
    return ".".join(word[0].upper() for word in words)


def chained(words):
    out = [words[0]]
    for word in words[1:]:
        if word[0] > out[-1][0]:
            out.append(word)
    return out


def longest_shortest(words):
    return max(words, key=len), min(words, key=len)


def sorted_by_end(words):
    return sorted(words, key=lambda word: word[::-1])


def letters_shared(words):
    return sorted(set(words[0]) & set(words[-1]))


def turned(grid):
    return [list(row) for row in zip(*grid[::-1])]


def row_sums_and_total(grid):
    sums = [sum(row) for row in grid]
    return sums, sum(sums)


def diagonal(grid):
    return [row[place] for place, row in enumerate(grid) if place < len(row)]


def cheapest(prices):
    return min(prices, key=lambda name: (prices[name], name))


def raised_prices(prices):
    return {name: price + 2 if price < 10 else price for name, price in prices.items()}


def inverted(prices):
    return {price: name for name, price in sorted(prices.items())}


FUNCTIONS = tuple(
    value
    for value in tuple(globals().values())
    if callable(value) and getattr(value, "__module__", None) == __name__
)
"""All of the above, in the order they are written."""
