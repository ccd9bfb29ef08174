"""Word problems about measures: motion, shapes, time, temperature and units."""

from __future__ import annotations

from sambay.data.problems.base import Dice, Numbers
from sambay.data.problems.stories import Story, asked, upto


def _ride(dice: Dice, level: int) -> Numbers:
    """A speed and a time."""
    speed = 10 * upto(dice, level, 9, 12, 15) if dice.chance(0.5) else dice.between(11, (30, 90, 150)[level])
    return speed, upto(dice, level, 5, 9, 12)


def _ridden(dice: Dice, level: int) -> Numbers:
    """A distance and its time."""
    speed, time = dice.between(11, (30, 90, 150)[level]), dice.between(2, 9)
    return speed * time, time


def _to_ride(dice: Dice, level: int) -> Numbers:
    """A distance and a speed that divides it easily."""
    speed = 10 * dice.between(2, 9) if dice.chance(0.8) else dice.pick((12, 15, 25))
    return speed * upto(dice, level, 9, 12, 20), speed


def _two_rides(dice: Dice, level: int) -> Numbers:
    a, b = _ride(dice, level)
    c, d = _ride(dice, level)
    return a, b, c, d


def _meeting(dice: Dice, level: int) -> Numbers:
    """Two speeds whose sum is a multiple of ten, and the distance."""
    tens = dice.between(2, 9)
    first = 10 * dice.between(1, tens - 1) + dice.pick((0, 0, 5, 2)[: 2 + level])
    return first, 10 * tens - first, 10 * tens * upto(dice, level, 6, 9, 12)


def _sides(dice: Dice, level: int) -> Numbers:
    return upto(dice, level, 10, 30, 99), upto(dice, level, 10, 20, 60)


def _solid(dice: Dice, level: int) -> Numbers:
    return upto(dice, level, 5, 9, 15), upto(dice, level, 5, 9, 12), upto(dice, level, 5, 9, 12)


def _side(dice: Dice, level: int) -> Numbers:
    return (upto(dice, level, 10, 60, 300),)


def _area_side(dice: Dice, level: int) -> Numbers:
    side = dice.between(2, 9)
    return side * upto(dice, level, 9, 30, 90), side


def _width(dice: Dice, level: int) -> Numbers:
    a, b = _sides(dice, level)
    return a, 2 * (a + b)


def _triangle(dice: Dice, level: int) -> Numbers:
    base, height = upto(dice, level, 10, 20, 40), upto(dice, level, 9, 12, 25)
    return (base, height) if base * height % 2 == 0 else (base + 1, height)


def _angles(dice: Dice, level: int) -> Numbers:
    step = (10, 5, 1)[level]
    a = step * dice.between(20 // step, 100 // step)
    return a, step * dice.between(20 // step, (160 - a) // step)


def _posts(dice: Dice, level: int) -> Numbers:
    gap = dice.between(2, 9)
    return gap * upto(dice, level, 9, 30, 90), gap


def _hours_minutes(dice: Dice, level: int) -> Numbers:
    return dice.between(1, (4, 6, 12)[level]), dice.between(2, 59)


def _clock(dice: Dice, level: int) -> Numbers:
    start, hours = dice.between(6, 17), dice.between(1, (2, 4, 6)[level])
    step = (15, 5, 1)[level]
    return start, step * dice.below(60 // step), start + hours, step * dice.below(60 // step)


def _warmer(dice: Dice, level: int) -> Numbers:
    start = dice.between(-20, 20)
    return start, upto(dice, level, 10, 20, 30)


def _meters_cm(dice: Dice, level: int) -> Numbers:
    return upto(dice, level, 9, 30, 90), dice.between(2, 99)


def _stairs(dice: Dice, level: int) -> Numbers:
    return dice.between(8, 20), upto(dice, level, 5, 9, 12)


# Name, factor, one of the larger unit, the larger unit, the smaller unit.
_UNITS = (
    ("meters_cm", 100, "meter", "meters", "centimeters"),
    ("km_m", 1000, "kilometer", "kilometers", "meters"),
    ("kg_g", 1000, "kilogram", "kilograms", "grams"),
    ("hours", 60, "hour", "hours", "minutes"),
    ("minutes", 60, "minute", "minutes", "seconds"),
    ("weeks", 7, "week", "weeks", "days"),
    ("days", 24, "day", "days", "hours"),
    ("years", 12, "year", "years", "months"),
    ("feet", 12, "foot", "feet", "inches"),
    ("cm_mm", 10, "centimeter", "centimeters", "millimeters"),
    ("liters", 1000, "liter", "liters", "milliliters"),
    ("dollars", 100, "dollar", "dollars", "cents"),
    ("yards", 3, "yard", "yards", "feet"),
    ("tons", 1000, "ton", "tons", "kilograms"),
    ("dozens", 12, "dozen", "dozen", "eggs"),
    ("pounds", 16, "pound", "pounds", "ounces"),
)
_SHORT = {
    "meters": "m", "centimeters": "cm", "kilometers": "km", "kilograms": "kg", "grams": "g", "liters": "l",
    "milliliters": "ml", "millimeters": "mm", "hours": "h", "minutes": "min", "seconds": "sec",
}  # fmt: skip
_CONVERT = (
    "How many {to} are {{a}} {of}?",
    "How many {to} are there in {{a}} {of}?",
    "Convert {{a}} {of} to {to}.",
    "convert {{a}} {of} to {to}",
    "Write {{a}} {of} in {to}.",
    "{{a}} {of} in {to}",
    "{{a}} {of} to {to}",
    "What is {{a}} {of} in {to}?",
    "How many {to} do {{a}} {of} make?",
    "How many {to} in {{a}} {of}?",
    "how many {to} are {{a}} {of}",
    "What are {{a}} {of} in {to}?",
    "{{a}} {of} = how many {to}?",
    "{{a}} {of} is how many {to}?",
    "{{N}} needs {{a}} {of}. How many {to} is that?",
    "How much is {{a}} {of} in {to}?",
    "Change {{a}} {of} into {to}.",
)


def _conversions(name: str, factor: int, one: str, large: str, small: str) -> tuple[Story, Story]:
    """Return the conversion to the smaller unit and the one back."""

    def story(suffix: str, weight: float, most: tuple[int, int, int], of: str, to: str, sign: str) -> Story:
        scale = factor if sign == "÷" else 1
        return Story(
            f"{name}_{suffix}",
            weight,
            lambda dice, level: (scale * upto(dice, level, *most),),
            (
                *(text.format(of=of, to=to) for text in _CONVERT),
                *(text.format(of=_SHORT.get(of, of), to=_SHORT.get(to, to)) for text in _CONVERT),
            ),
            (f"One {one} has {factor} {small}: a {sign} {factor}",),
            f"In {to} that is {{box}}.",
        )

    down = story("down", 0.7, (9, 30, 90), large, small, "×")
    return down, story("up", 0.6, (9, 20, 40), small, large, "÷")


STORIES = (
    Story(
        "distance",
        8,
        _ride,
        (
            "A car drives {b} hours at {a} km per hour. How far does it go?",
            "A train goes {a} km per hour. How many km does it travel in {b} hours?",
            "{N} rides a bike at {a} km/h for {b} hours. How many km is that?",
            "How far does a bus get in {b} hours at {a} km/h?",
            "{N} drives at a speed of {a} km per hour. What distance does {he} cover in {b} hours?",
            "A ship moves at {a} miles per hour for {b} hours. How many miles does it move?",
            *asked(
                (
                    "a {car} goes {a} km an hour",
                    "a {car} goes {a} km/h",
                    "a {car} travels at {a} km/h",
                    "a {car} travels {a} km per hour",
                    "a {car} moves at a speed of {a} km/h",
                    "{N} [drives] at {a} km/h",
                    "{N} [rides] {a} km in one hour",
                ),
                ("how far does it go in {b} hours", "how far in {b} hours", "how many km is that in {b} hours"),
            ),
            *asked(
                ("a {car} drives {b} hours at {a} km/h", "a {car} travels for {b} hours at {a} km/h"),
                ("how far does it go", "how far is that", "what is the distance", "how many km does it travel"),
            ),
        ),
        ("Speed times time: a × b",),
        "The distance is {box}.",
    ),
    Story(
        "speed",
        6.5,
        _ridden,
        (
            "A car drives {a} km in {b} hours. What is its speed in km per hour?",
            "{N} rides {a} km in {b} hours. How fast is that in km/h?",
            "A train needs {b} hours for {a} km. Find its average speed.",
            "What is the average speed in km/h if {N} drives {a} km in {b} hours?",
            *asked(
                (
                    "a {car} drives {a} km in {b} hours",
                    "a {car} travels {a} km in {b} hours",
                    "a {car} covers {a} km in {b} hours",
                    "a {car} takes {b} hours for {a} km",
                    "{N} [rides] {a} km in {b} hours",
                ),
                (
                    "what is its average speed",
                    "what is the average speed",
                    "how fast is that",
                    "what is the speed",
                    "how many km per hour is that",
                    "how fast is it in km/h",
                ),
            ),
        ),
        ("Distance by time: a ÷ b",),
        "The speed is {box}.",
    ),
    Story(
        "time",
        5,
        _to_ride,
        (
            "How many hours does a car need for {a} km at {b} km per hour?",
            "{N} travels {a} km at {b} km/h. How many hours does it take?",
            "A boat goes {b} km per hour. How long does it take for {a} km?",
            "A train drives {b} km in an hour. How many hours does it need for {a} km?",
            *asked(
                ("a {car} goes {b} km/h", "a {car} travels at {b} km/h", "{N} [drives] {b} km/h"),
                ("how long does it take for {a} km", "how many hours for {a} km", "how long do {a} km take"),
            ),
            "How long does it take to travel {a} km at {b} km/h?",
            "How long does it take to drive {a} km at {b} km/h?",
            "How long does a {car} take for {a} km at {b} km/h?",
            "How many hours do you need for {a} km at {b} km/h?",
            "{a} km at {b} km/h, how long does it take?",
        ),
        ("Distance by speed: a ÷ b",),
        "The number of hours is {box}.",
    ),
    Story(
        "two_rides",
        2,
        _two_rides,
        (
            "A car drives {b} hours at {a} km/h and then {d} hours at {c} km/h. How many km is that in all?",
            "{N} drives at {a} km per hour for {b} hours and at {c} km per hour for {d} hours. How far does {he} get?",
            "A train travels {b} hours at {a} km/h, then {d} hours at {c} km/h. Find the total distance.",
        ),
        ("First part: a × b", "Second part: c × d", "Total: P + Q"),
        "The distance is {box}.",
    ),
    Story(
        "meeting",
        1.5,
        _meeting,
        (
            "Two trains are {c} km apart and drive toward each other at {a} km/h and {b} km/h. "
            "After how many hours do they meet?",
            "{N} and {M} start {c} km apart and move toward each other at {a} and {b} km per hour. "
            "How many hours until they meet?",
            "Two cars leave a town in opposite directions at {a} km/h and {b} km/h. "
            "After how many hours are they {c} km apart?",
        ),
        ("Speed together: a + b", "Time: c ÷ P"),
        "The number of hours is {box}.",
    ),
    Story(
        "area",
        4.5,
        _sides,
        (
            "A rectangle is {a} cm long and {b} cm wide. What is its area?",
            "Find the area of a rectangle with sides {a} and {b}.",
            "What is the area of a {a} by {b} rectangle?",
            "A garden is {a} m long and {b} m wide. How many square meters is that?",
            "A floor measures {a} m by {b} m. Calculate its area.",
            "Area of a rectangle with length {a} and width {b}",
            *asked(
                (
                    "a rectangle is {a} {cm} by {b} {cm}",
                    "the rectangle is {a} {cm} by {b} {cm}",
                    "a rectangle has sides of {a} {cm} and {b} {cm}",
                    "a room is {a} {cm} long and {b} {cm} wide",
                    "the length is {a} {cm} and the width is {b} {cm}",
                ),
                ("what is the area", "what is its area", "how large is the area", "find the area"),
                condition=False,
            ),
            "area of a {a} {cm} by {b} {cm} rectangle",
            "What is the area of a rectangle {a} {cm} by {b} {cm}?",
        ),
        ("Length times width: a × b",),
        "The area is {box}.",
        symmetric=True,
    ),
    Story(
        "perimeter",
        4.5,
        _sides,
        (
            "A rectangle is {a} cm long and {b} cm wide. What is its perimeter?",
            "Find the perimeter of a rectangle with sides {a} and {b}.",
            "What is the perimeter of a {a} by {b} rectangle?",
            "A garden is {a} m long and {b} m wide. How many meters of fence go around it?",
            "{N} walks once around a field of {a} m by {b} m. How many meters does {he} walk?",
            "Perimeter of a rectangle with length {a} and width {b}",
            *asked(
                (
                    "a rectangle is {a} {cm} by {b} {cm}",
                    "the rectangle is {a} {cm} by {b} {cm}",
                    "a rectangle has sides of {a} {cm} and {b} {cm}",
                    "a room is {a} {cm} long and {b} {cm} wide",
                    "the length is {a} {cm} and the width is {b} {cm}",
                ),
                ("what is the perimeter", "what is its perimeter", "how long is the perimeter", "find the perimeter"),
                condition=False,
            ),
            "perimeter of a {a} {cm} by {b} {cm} rectangle",
            "What is the perimeter of a rectangle {a} {cm} by {b} {cm}?",
        ),
        ("Length plus width: a + b", "Times 2: P × 2"),
        "The perimeter is {box}.",
        symmetric=True,
    ),
    Story(
        "square_perimeter",
        1,
        _side,
        (
            "A square has sides of {a} cm. What is its perimeter?",
            "Find the perimeter of a square with side {a}.",
            "What is the perimeter of a square of side length {a}?",
            "How long is the fence around a square garden with sides of {a} m?",
            *asked(
                (
                    "a square has a side of {a} {cm}",
                    "the side of a square is {a} {cm}",
                    "each side of a square is {a} {cm}",
                ),
                ("what is the perimeter", "what is its perimeter", "how long is the perimeter"),
            ),
            "perimeter of a square with side {a} {cm}",
        ),
        ("Four sides: a × 4",),
        "The perimeter is {box}.",
    ),
    Story(
        "square_area",
        1,
        lambda dice, level: (upto(dice, level, 10, 30, 60),),
        (
            "A square has sides of {a} cm. What is its area?",
            "Find the area of a square with side {a}.",
            "What is the area of a square of side length {a}?",
            "How many square meters has a square garden with sides of {a} m?",
            *asked(
                (
                    "a square has a side of {a} {cm}",
                    "the side of a square is {a} {cm}",
                    "each side of a square is {a} {cm}",
                ),
                ("what is the area", "what is its area", "how large is the area"),
            ),
            "area of a square with side {a} {cm}",
        ),
        ("Side times side: a × a",),
        "The area is {box}.",
    ),
    Story(
        "area_side",
        2,
        _area_side,
        (
            "A rectangle has an area of {a} and a width of {b}. What is its length?",
            "The area of a rectangle is {a} square cm. One side is {b} cm. How long is the other side?",
            "A room of {a} square meters is {b} m wide. How long is it?",
            "Find the length of a rectangle with area {a} and width {b}.",
        ),
        ("Area by width: a ÷ b",),
        "The length is {box}.",
    ),
    Story(
        "width",
        1.2,
        _width,
        (
            "A rectangle has a perimeter of {b} and a length of {a}. What is its width?",
            "The perimeter of a rectangle is {b} cm. It is {a} cm long. How wide is it?",
            "Find the width of a rectangle with perimeter {b} and length {a}.",
            "A fence of {b} m goes around a garden that is {a} m long. How wide is the garden?",
        ),
        ("Half the perimeter: b ÷ 2", "Width: P - a"),
        "The width is {box}.",
    ),
    Story(
        "triangle",
        1.5,
        _triangle,
        (
            "A triangle has a base of {a} and a height of {b}. What is its area?",
            "Find the area of a triangle with base {a} and height {b}.",
            "The base of a triangle is {a} cm and its height is {b} cm. Find the area.",
            "What is the area of a triangle with a base of {a} cm and a height of {b} cm?",
        ),
        ("Base times height: a × b", "Half of it: P ÷ 2"),
        "The area is {box}.",
        symmetric=True,
    ),
    Story(
        "angles",
        1.5,
        _angles,
        (
            "Two angles of a triangle are {a} and {b} degrees. How many degrees is the third?",
            "A triangle has angles of {a} and {b} degrees. Find the third angle.",
            "What is the third angle of a triangle with angles {a} and {b} degrees?",
        ),
        ("Two angles: a + b", "The third: 180 - P"),
        "The third angle is {box}.",
        symmetric=True,
    ),
    Story(
        "volume",
        1.5,
        _solid,
        (
            "A box is {a} cm long, {b} cm wide and {c} cm high. What is its volume?",
            "Find the volume of a box with sides {a}, {b} and {c}.",
            "What is the volume of a {a} by {b} by {c} box?",
            "A tank measures {a} m by {b} m by {c} m. How many cubic meters does it hold?",
        ),
        ("Base: a × b", "Times the height: P × c"),
        "The volume is {box}.",
        symmetric=True,
    ),
    Story(
        "posts",
        1,
        _posts,
        (
            "A fence of {a} m has a post every {b} m, also at both ends. How many posts are there?",
            "Trees stand along a road of {a} m, one every {b} m from start to end. How many trees is that?",
            "{N} puts lamps along a path of {a} m, {b} m apart, with one at each end. How many lamps does {he} need?",
        ),
        ("Gaps: a ÷ b", "One more at the end: P + 1"),
        "The number is {box}.",
    ),
    Story(
        "hours_minutes",
        2,
        _hours_minutes,
        (
            "How many minutes are {a} h {b} min?",
            "A film takes {a} h {b} min. How many minutes is that?",
            "Convert {a} h {b} min to minutes.",
            "{N} works {a} h and {b} min. How many minutes does {he} work?",
            "{a} h {b} min in minutes",
            "How many minutes are in {a} hours and {b} minutes?",
            "How many minutes are {a} hours and {b} minutes?",
            "A trip takes {a} hours and {b} minutes. How many minutes is that?",
            "{a} hours {b} minutes in minutes",
        ),
        ("Hours in minutes: a × 60", "Total: P + b"),
        "The number of minutes is {box}.",
    ),
    Story(
        "minutes_seconds",
        1,
        _hours_minutes,
        (
            "How many seconds are {a} min {b} s?",
            "A song takes {a} min {b} s. How many seconds is that?",
            "Convert {a} min {b} s to seconds.",
            "{N} runs for {a} min and {b} s. How many seconds does {he} run?",
        ),
        ("Minutes in seconds: a × 60", "Total: P + b"),
        "The number of seconds is {box}.",
    ),
    Story(
        "clock",
        3,
        _clock,
        (
            "A film starts at {a}:{b:02d} and ends at {c}:{d:02d}. How many minutes does it take?",
            "A train leaves at {a}:{b:02d} and arrives at {c}:{d:02d}. How many minutes is the ride?",
            "How many minutes is it from {a}:{b:02d} to {c}:{d:02d}?",
            "{N} works from {a}:{b:02d} to {c}:{d:02d}. How many minutes is that?",
            *asked(
                (
                    "a {car} leaves at {a}:{b:02d} and arrives at {c}:{d:02d}",
                    "school starts at {a}:{b:02d} and ends at {c}:{d:02d}",
                    "it is {a}:{b:02d} now and the game starts at {c}:{d:02d}",
                    "{N} [works] from {a}:{b:02d} to {c}:{d:02d}",
                ),
                ("how many minutes is that", "how long is that in minutes", "how many minutes are between them"),
            ),
            "How many minutes are there between {a}:{b:02d} and {c}:{d:02d}?",
            "How long is it from {a}:{b:02d} to {c}:{d:02d} in minutes?",
            "minutes from {a}:{b:02d} to {c}:{d:02d}",
        ),
        ("Hours: c - a", "In minutes: P × 60", "Minutes: Q + d", "Minutes: R - b"),
        "The number of minutes is {box}.",
    ),
    Story(
        "warmer",
        2,
        _warmer,
        (
            "It is {a} degrees and gets {b} degrees warmer. What is the temperature then?",
            "The temperature is {a} degrees and rises by {b} degrees. What is it now?",
            "At night it was {a} degrees. By noon it was {b} degrees warmer. How many degrees was it at noon?",
        ),
        ("Add: a + b",),
        "The temperature is {box}.",
    ),
    Story(
        "colder",
        2,
        _warmer,
        (
            "It is {a} degrees and gets {b} degrees colder. What is the temperature then?",
            "The temperature is {a} degrees and falls by {b} degrees. What is it now?",
            "At noon it was {a} degrees. By night it was {b} degrees colder. How many degrees was it at night?",
        ),
        ("Subtract: a - b",),
        "The temperature is {box}.",
    ),
    Story(
        "meters_and_cm",
        1.5,
        _meters_cm,
        (
            "How many centimeters are {a} m {b} cm?",
            "Convert {a} m {b} cm to cm.",
            "A rope is {a} m and {b} cm long. How long is it in cm?",
            "Write {a} m {b} cm in centimeters.",
            "{a} m {b} cm in cm",
            "How many cm are {a} m and {b} cm?",
            "How many centimeters are in {a} meters and {b} centimeters?",
        ),
        ("Meters in cm: a × 100", "Total: P + b"),
        "The length in cm is {box}.",
    ),
    Story(
        "stairs",
        1,
        _stairs,
        (
            "There are {a} steps between two floors. {N} climbs {b} floors up and down again. "
            "How many steps does {he} take?",
            "A round in the park takes {a} minutes. "
            "{N} walks {b} rounds in the morning and {b} in the evening. "
            "How many minutes does {he} walk?",
            "A lesson takes {a} minutes. {N} and {M} give {b} lessons each. How many minutes do they teach in all?",
        ),
        ("Once: a × b", "Twice: P × 2"),
        "The number is {box}.",
    ),
    *(story for unit in _UNITS for story in _conversions(*unit)),
)
