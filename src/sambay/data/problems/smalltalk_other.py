"""Questions that the model declines, put together from pieces: other mathematics, other subjects, too large numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sambay.data.problems.base import Dice

_FUNCTIONS: Final = (
    "x^2", "x^3", "sin(x)", "cos(x)", "tan(x)", "e^x", "ln(x)", "1/x", "x sin(x)", "log(x)", "2^x", "x e^x", "5x^4",
    "sin(2x)", "cos(x)^2",
)  # fmt: skip
_ABOUT_FUNCTIONS: Final = (
    "What is the derivative of {f}?", "Differentiate {f}.", "derivative of {f}", "Find the derivative of {f}.",
    "What is the integral of {f}?", "Integrate {f}.", "integral of {f}", "Find the integral of {f} from 0 to {n}.",
    "d/dx {f}", "Find the limit of {f} as x goes to {n}.", "Plot y = {f}.", "Draw the graph of {f}.",
    "Where is the maximum of {f}?", "What is the second derivative of {f}?", "Is {f} continuous?",
    "What is the inverse of the function {f}?", "Find the tangent to {f} at x = {n}.",
)  # fmt: skip
_TOPICS: Final = (
    "a matrix", "a vector", "an eigenvalue", "a complex number", "a prime number", "a logarithm", "an integral",
    "a derivative", "a determinant", "a standard deviation", "a quadratic equation", "a circle", "an ellipse",
    "a permutation", "a probability", "a proof", "a set", "a group", "a polynomial", "an irrational number",
)  # fmt: skip
_ABOUT_TOPICS: Final = (
    "What is {t}?", "Explain what {t} is.", "Define {t}.", "How do I compute {t}?", "Give me an example of {t}.",
    "Teach me about {t}.", "Can you work with {t}?", "What is {t} used for?", "How do I find {t}?",
)  # fmt: skip
_WITH_NUMBERS: Final = (
    "What is sin({n})?", "sin({n})", "cos({n})", "What is cos({n})?", "tan({n})", "What is the sine of {n} degrees?",
    "log({n})", "What is log({n})?", "ln({n})", "What is the logarithm of {n}?", "log base {k} of {n}", "{n}!",
    "What is {n} factorial?", "{n} factorial", "Is {n} a prime number?", "is {n} prime", "Is {n} prime?",
    "Find all primes up to {n}.", "What are the prime factors of {n}?", "Factorize {n}.", "List the factors of {n}.",
    "What is the next prime after {n}?", "What is the area of a circle with radius {n}?",
    "area of a circle with radius {n}", "What is the circumference of a circle with radius {n}?",
    "Find the circumference of a circle with diameter {n}.", "What is the volume of a sphere of radius {n}?",
    "Find the volume of a cylinder with radius {k} and height {n}.", "How many diagonals has a polygon of {n} sides?",
    "What is the hypotenuse of a right triangle with sides {k} and {n}?", "Write {n} in binary.", "{n} in binary",
    "Convert {n} to Roman numerals.", "{n} in hexadecimal", "What is {n} choose {k}?",
    "In how many ways can {k} of {n} people be chosen?", "What is the {n}th Fibonacci number?",
    "What is the {n}th digit of pi?", "A die is rolled {k} times. What is the probability of a six?",
    "What is the probability of rolling a {k} with two dice?", "A coin is tossed {k} times. How likely are only heads?",
    "What is the standard deviation of {k}, {n} and {m}?", "What is the median of {k}, {n} and {m}?",
    "gcd of {n} and {m}", "What is the greatest common divisor of {n} and {m}?", "lcm of {n} and {m}",
    "Find the least common multiple of {n} and {m}.", "What is the absolute value of -{n}?", "i^{n}",
    "Multiply the matrix ({k} {n}; {m} 1) by itself.", "Find the determinant of ({k} {n}; {m} 5).",
    "Factor x^2 + {n}x + {m}.", "Factor x^2 - {n}.", "Expand (x + {k})(x - {n}).", "Expand (x + {k})^2.",
    "Solve x^2 + {n}x + {m} = 0.", "Solve x^2 = {n}.", "x^2 - {n}x + {m} = 0", "Solve {k}x^2 - {n}x = {m}.",
    "Solve x^3 = {n}.", "Solve 2^x = {n}.", "Solve x + y = {n} and x - y = {k}.", "x + y = {n}, x - y = {k}",
    "Solve the system {k}x + y = {n}, x + y = {m}.", "Solve the system x + {k}y = {n}, {k}x - y = {m}.",
    "Solve x > {n}.", "Solve {k}x + {n} < {m}.", "What is the sum of all numbers from 1 to {n}?",
    "What is the sum of the series 1 + 1/{k} + 1/{n} + ...?", "What comes next: {k}, {n}, {m}?",
    "Sum of the digits of {n}", "Prove that {n} is irrational.", "Round pi to {k} digits.",
)  # fmt: skip
_ROOTS: Final = (
    "What is the square root of {n}?", "square root of {n}", "sqrt({n})", "Find the square root of {n}.", "sqrt {n}",
    "What is sqrt({n})?", "Calculate the square root of {n}.", "root of {n}",
)  # fmt: skip
_THEOREMS: Final = (
    "the Pythagorean theorem", "the Riemann hypothesis", "Fermat's last theorem", "the four color theorem",
    "the fundamental theorem of calculus", "that the square root of 2 is irrational", "that 1 + 1 = 2",
    "that there are infinitely many primes", "the binomial theorem", "Euler's formula", "the quadratic formula",
    "the Goldbach conjecture", "that pi is irrational", "the law of cosines", "that 0.999... is 1", "by induction",
)  # fmt: skip
_PROVE: Final = ("Prove {t}.", "Can you prove {t}?", "Show {t}.", "prove {t}", "How is it proved: {t}?", "Explain {t}.")

_SUBJECTS: Final = (
    "cats", "dogs", "the moon", "the sea", "love", "France", "Japan", "Rome", "the war", "football", "music", "coffee",
    "dinosaurs", "the weather", "the sun", "Mars", "black holes", "atoms", "evolution", "electricity", "computers",
    "the internet", "Python", "JavaScript", "history", "philosophy", "politics", "money", "the economy", "health",
    "sleep", "the heart", "cancer", "vitamins", "rice", "pizza", "bread", "trees", "the ocean", "volcanoes", "gravity",
    "Einstein", "Newton", "Shakespeare", "Mozart", "Napoleon", "Picasso", "the pyramids", "democracy", "chess",
    "a dragon", "a robot", "a princess", "school", "friendship", "happiness", "artificial intelligence", "the future",
)  # fmt: skip
_ABOUT: Final = (
    "Write me a poem about {s}.", "Write a story about {s}.", "Write an essay about {s}.", "Tell me about {s}.",
    "Tell me a joke about {s}.", "What do you know about {s}?", "Explain {s}.", "Explain {s} to a child.",
    "Write a song about {s}.", "What do you think of {s}?", "Do you like {s}?", "Give me facts about {s}.",
    "Write me an email about {s}.", "Why is {s} important?", "Who invented {s}?", "Write a haiku about {s}.",
    "Translate {s} into German.", "How do you say {s} in Spanish?", "What is the French word for {s}?",
    "Draw a picture of {s}.", "Recommend a book about {s}.", "What is {s}?", "Write me a program about {s}.",
    "Summarize the history of {s}.", "Let us talk about {s}.", "I like {s}", "Is {s} good or bad?",
)  # fmt: skip
_PLACES: Final = (
    "France", "Spain", "Italy", "Japan", "China", "Brazil", "Egypt", "Kenya", "Canada", "Mexico", "India", "Norway",
    "Peru", "Poland", "Turkey", "Germany", "England", "Greece", "Chile", "Cuba", "Iran", "Nepal", "Australia", "Russia",
)  # fmt: skip
_ABOUT_PLACES: Final = (
    "What is the capital of {s}?", "capital of {s}", "How many people live in {s}?", "Where is {s}?",
    "Who is the president of {s}?", "How large is {s}?", "Which language is spoken in {s}?", "When was {s} founded?",
    "What is the highest mountain of {s}?", "What is the weather in {s}?", "How far is {s}?",
    "What do people eat in {s}?", "Which river flows through {s}?", "What currency does {s} have?",
)  # fmt: skip
_TASKS: Final = (
    "sorts a list", "reverses a string", "adds two numbers", "reads a file", "prints hello world", "finds primes",
    "downloads a page", "counts words", "plays chess", "draws a circle",
)  # fmt: skip
_CODE: Final = (
    "Write Python code that {s}.", "Write a function that {s}.", "Write a program that {s}.", "def f(x): return x",
    "How do I write code that {s}?", "Give me Java code that {s}.", "Write a C program that {s}.", "import numpy as np",
    "print('hello')", "SELECT * FROM users;", "Fix this code: for i in range(10) print(i)",
)  # fmt: skip
_FOREIGN: Final = (
    "Wie geht es dir?", "Hola, como estas?", "Bonjour, comment ca va?", "Was ist das?", "Wer bist du?",
    "Ciao, come stai?",
    "Guten Tag, kannst du mir helfen?", "Quelle heure est-il?", "Donde esta la biblioteca?", "Wie viel kostet das?",
    "Ich verstehe nicht.", "Je ne comprends pas.", "No entiendo nada.", "Parlez-vous anglais?", "Hablas ingles?",
    "Sprichst du Deutsch?", "Wieviel ist zwei plus zwei?", "Combien font deux et deux?", "Cuanto es dos mas dos?",
    "Hej, hur mar du?", "Ola, tudo bem?", "Dzien dobry", "Kak dela?", "Konnichiwa", "Merhaba, nasilsin?", "Namaste",
    "Was ist die Hauptstadt von Frankreich?", "Quelle est la capitale de la France?", "Quanto fa due piu due?",
)  # fmt: skip
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


def hard_question(dice: Dice) -> str:
    """Draw a question of mathematics beyond what the problems cover."""
    way = dice.below(12)
    if way < 5:
        k, n, m = (dice.between(2, bound) for bound in (9, 99, 60))
        return _filled(dice, _WITH_NUMBERS, k=k, n=n, m=m)
    if way < 8:
        return _filled(dice, _ABOUT_FUNCTIONS, f=dice.pick(_FUNCTIONS), n=dice.between(1, 9))
    if way < 9:
        number = dice.pick((2, 3, 5, 7)) if dice.chance(0.3) else dice.between(2, 200)
        # The square roots of squares are left to arithmetic.
        while round(number**0.5) ** 2 == number:
            number += 1
        return _filled(dice, _ROOTS, n=number)
    if way < 10:
        return _filled(dice, _PROVE, t=dice.pick(_THEOREMS))
    return _filled(dice, _ABOUT_TOPICS, t=dice.pick(_TOPICS))


def other_question(dice: Dice) -> str:
    """Draw a question of another subject."""
    way = dice.below(10)
    if way < 5:
        return _filled(dice, _ABOUT, s=dice.pick(_SUBJECTS))
    if way < 7:
        return _filled(dice, _ABOUT_PLACES, s=dice.pick(_PLACES))
    if way < 8:
        return _filled(dice, _CODE, s=dice.pick(_TASKS))
    return dice.pick(_FOREIGN) if way < 9 else nonsense(dice)


def nonsense(dice: Dice) -> str:
    """Draw letters that mean nothing."""
    words = ["".join(dice.pick(_LETTERS) for _ in range(dice.between(3, 9))) for _ in range(dice.between(1, 4))]
    if dice.chance(0.2):
        words = [dice.pick(_LETTERS) * dice.between(3, 9)]
    elif dice.chance(0.15):
        words = [dice.pick(("?", "??", "...", "!!!", "-", "+", "=", "()", "%", "x", "*", ":)"))]
    return " ".join(words)


def large_question(dice: Dice) -> str:
    """Draw arithmetic with numbers too large for the written methods."""
    way = dice.below(8)
    if way < 3:
        e = f"{dice.digits(dice.between(5, 9))} {dice.pick('*×x')} {dice.digits(dice.between(5, 9))}"
    elif way < 5:
        e = f"{dice.digits(dice.between(8, 14))} {dice.pick('+-')} {dice.digits(dice.between(8, 14))}"
    elif way < 6:
        e = f"{dice.digits(dice.between(9, 14))} {dice.pick('÷/')} {dice.digits(dice.between(3, 8))}"
    elif way < 7:
        e = f"{dice.digits(dice.between(3, 6))}^{dice.digits(2)}"
    else:
        e = " + ".join(str(dice.digits(dice.between(8, 10))) for _ in range(3))
    if dice.chance(0.2):
        e = e.replace(" ", "")
    return _filled(dice, ("{e}", "{e}", "What is {e}?", "Calculate {e}.", "{e} = ?", "How much is {e}?", "{e}="), e=e)


def _filled(dice: Dice, templates: Sequence[str], **slots: object) -> str:
    return dice.pick(templates).format(**slots)
