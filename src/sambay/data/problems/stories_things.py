"""Word problems about things: having, giving, comparing, sharing and packing."""

from __future__ import annotations

from sambay.data.problems.base import Dice, Numbers
from sambay.data.problems.stories import Story, asked, upto


def _two(dice: Dice, level: int) -> Numbers:
    return upto(dice, level, 10, 90, 900), upto(dice, level, 10, 90, 900)


def _down(dice: Dice, level: int) -> Numbers:
    """The larger of two numbers first."""
    part = upto(dice, level, 10, 60, 500)
    return part + upto(dice, level, 10, 60, 500), part


def _gain_loss(dice: Dice, level: int) -> Numbers:
    a, b = upto(dice, level, 10, 60, 400), upto(dice, level, 10, 60, 400)
    return a, b, dice.between(2, a + b - 1)


def _loss_gain(dice: Dice, level: int) -> Numbers:
    a, b = _down(dice, level)
    return a, b, upto(dice, level, 10, 60, 200)


def _times(dice: Dice, level: int) -> Numbers:
    return upto(dice, level, 10, 30, 120), upto(dice, level, 6, 9, 15)


def _exact(dice: Dice, level: int) -> Numbers:
    divisor = upto(dice, level, 6, 9, 9)
    return divisor * upto(dice, level, 9, 30, 150), divisor


def _with_rest(dice: Dice, level: int) -> Numbers:
    divisor = dice.between(3, 9)
    return divisor * upto(dice, level, 9, 20, 90) + dice.between(1, divisor - 1), divisor


def _boxes(dice: Dice, level: int) -> Numbers:
    return upto(dice, level, 6, 9, 20), upto(dice, level, 9, 15, 40), upto(dice, level, 9, 20, 60)


def _stock(dice: Dice, level: int) -> Numbers:
    start, boxes, each = (
        upto(dice, level, 20, 60, 300),
        upto(dice, level, 5, 9, 12),
        upto(dice, level, 6, 12, 30),
    )
    return start, boxes, each, dice.between(2, start + boxes * each - 1)


def _taken(dice: Dice, level: int) -> Numbers:
    rows, each = upto(dice, level, 6, 12, 25), dice.between(3, (9, 15, 30)[level])
    return rows, each, dice.between(2, rows * each - 1)


def _legs(dice: Dice, level: int) -> Numbers:
    return upto(dice, level, 8, 20, 60), upto(dice, level, 8, 20, 60)


STORIES = (
    Story(
        "together",
        8,
        _two,
        (
            "{N} has {a} {things} and {M} has {b} {things}. How many {things} do they have together?",
            "{N} picks {a} {things} and {M} picks {b}. How many {things} do they have in all?",
            "There are {a} {things} in one box and {b} in another. How many {things} are there in total?",
            "{N} has {a} {things}. {M} gives {him} {b} more. How many {things} does {N} have now?",
            "A shop sells {a} {things} on Monday and {b} on Tuesday. How many {things} does it sell in all?",
            "{N} found {a} {things} in the morning and {b} in the evening. How many did {he} find?",
            *asked(
                (
                    "{N} [has] {a} {things} and {M} has {b}",
                    "{N} [has] {a} {things} and [gets] {b} more",
                    "there are {a} red {things} and {b} blue {things}",
                    "{a} {things} are in one {bag} and {b} in another",
                    "{N} [buys] {a} {things} and then {b} more",
                ),
                ("how many {things} is that in total", "how many {things} are there altogether", "how many in all"),
            ),
        ),
        ("Together: a + b",),
        "The number of {things} is {box}.",
        symmetric=True,
    ),
    Story(
        "left",
        9,
        _down,
        (
            "{N} has {a} {things} and gives {b} of them to {M}. How many {things} are left?",
            "There are {a} {things} on a table. {N} takes {b}. How many are left?",
            "{N} had {a} {things} but lost {b}. How many {things} does {he} still have?",
            "A shop had {a} {things} and sold {b} of them. How many {things} does it have left?",
            "{N} buys {a} {things} and uses {b}. How many {things} remain?",
            "Out of {a} {things}, {b} are broken. How many {things} are not broken?",
            *asked(
                (
                    "{N} had {a} {things} and gave {b} away",
                    "{N} had {a} {foods} and ate {b}",
                    "{N} [has] {a} {things} and [loses] {b}",
                    "{N} [has] {a} {things}. {he} [gives] {b} to {M}",
                    "{N} [has] {a} {foods}. {he} [eats] {b} of them",
                    "{N} had {a} {things}, {b} broke",
                    "{N} bought {a} {things} and used {b} of them",
                ),
                ("how many are left", "how many {things} [does] {he} have left", "how many {things} remain"),
                condition=False,
            ),
            *asked(
                ("there are {a} {things} and {b} are taken away", "a shop has {a} {things} and sells {b}"),
                ("how many are left", "how many {things} are left", "how many {things} remain", "how many now"),
            ),
        ),
        ("Left: a - b",),
        "The number of {things} left is {box}.",
    ),
    Story(
        "gain_loss",
        5,
        _gain_loss,
        (
            "{N} has {a} {things}. {He} gets {b} more and then gives away {c}. How many {things} does {he} have now?",
            "A shop has {a} {things}, receives {b} and sells {c}. How many {things} are there now?",
            "{N} collected {a} {things}, found {b} more and lost {c}. How many {things} are left?",
            "There were {a} {things} in a box. {N} put in {b} and {M} took out {c}. How many are in the box now?",
            *asked(
                (
                    "{N} had {a} {things}, bought {b} more and gave {c} away",
                    "{N} [has] {a} {things}. {he} [gets] {b} more and [loses] {c}",
                    "{N} had {a} {foods}, got {b} more and ate {c}",
                    "{N} [has] {a} {foods}. {M} gives {him} {b}. then {he} [eats] {c}",
                ),
                ("how many now", "how many are left", "how many {things} [does] {he} have now"),
                condition=False,
            ),
        ),
        ("After the gain: a + b", "Left: P - c"),
        "The number of {things} is {box}.",
    ),
    Story(
        "more_together",
        3,
        _two,
        (
            "{N} has {a} {things}. {M} has {b} more than {N}. How many {things} do they have together?",
            "{N} picked {a} {things} and {M} picked {b} more than {N}. How many did they pick in all?",
            "A red box holds {a} {things} and a blue box holds {b} more. How many {things} are in both boxes?",
            "{N} made {a} {things}. {M} made {b} more {things} than {N}. How many did they make together?",
        ),
        ("The other: a + b", "Together: a + P"),
        "Together that is {box}.",
    ),
    Story(
        "difference",
        3,
        _down,
        (
            "{N} has {a} {things} and {M} has {b}. How many more {things} does {N} have?",
            "{N} has {a} {things}. {M} has {b} {things}. How many fewer does {M} have?",
            "One box has {a} {things}, another has {b}. What is the difference?",
            "{N} sold {a} {things} and {M} sold {b}. How many more did {N} sell than {M}?",
            "{N} needs {a} {things} but has only {b}. How many {things} are missing?",
            *asked(
                ("{N} [has] {a} {things} and {M} has {b}", "{N} [has] {a} {things}, {M} only {b}"),
                ("how many more {things} [does] {he} have", "how many more [does] {he} have than {M}"),
            ),
            *asked(
                ("one {bag} has {a} {things}, the other {b}", "there are {a} {things} and {b} {others}"),
                ("what is the difference", "how many more {things} are in the first", "how large is the difference"),
            ),
        ),
        ("Difference: a - b",),
        "The difference is {box}.",
    ),
    Story(
        "multiple",
        5,
        _times,
        (
            "{N} has {a} {things}. {M} has {b} times as many. How many {things} do they have together?",
            "{N} found {a} {things} and {M} found {b} times as many as {N}. How many did they find in all?",
            "A small bag holds {a} {things}. A large bag holds {b} times as many. How many do both bags hold?",
            "{M} has {b} times as many {things} as {N}, who has {a}. How many {things} do both have in total?",
            *asked(
                (
                    "{M} has {b} times as many {things} as {N}, who has {a}",
                    "{M} has {b} times as many as {N}, who has {a}",
                    "{N} has {a} {things} and {M} has {b} times as many",
                    "{N} [has] {a} {things}. {M} has {b} times that many",
                ),
                ("how many do they have together", "how many {things} is that together", "how many in total"),
            ),
        ),
        ("The other: a × b", "Together: a + P"),
        "Together that is {box}.",
    ),
    Story(
        "share",
        10,
        _exact,
        (
            "{N} shares {a} {things} equally among {b} {people}. How many does each get?",
            "{a} {things} are divided equally among {b} {people}. How many {things} does each one get?",
            "{N} puts {a} {things} equally into {b} {boxes}. How many {things} are in each?",
            "{b} {people} share {a} {things} fairly. How many {things} does each of them get?",
            "If {b} {things} cost {a} {money}, how much does one {thing} cost?",
            *asked(
                (
                    "{b} {people} share {a} {things} equally",
                    "{a} {things} are shared by {b} {people}",
                    "{a} {foods} are split equally among {b} {people}",
                    "{N} [divides] {a} {things} equally among {b} {people}",
                    "{N} [gives] {a} {foods} to {b} {people}, all get the same",
                    "{a} {things} for {b} {people}",
                ),
                ("how many does each get", "how many {things} does each one get", "how many for each", "how many each"),
                condition=False,
            ),
            *asked(
                ("{a} {things} go into {b} {boxes}", "{N} [puts] {a} {things} into {b} equal {boxes}"),
                ("how many {things} are in each {bag}", "how many in each {bag}", "how many per {bag}"),
            ),
            *asked(
                ("{b} {things} cost ${a}", "{N} [pays] ${a} for {b} {things}"),
                ("how much is one {thing}", "what does one cost", "how much does each {thing} cost"),
            ),
        ),
        ("Each: a ÷ b",),
        "For each one that is {box}.",
    ),
    Story(
        "share_rest",
        4.5,
        _with_rest,
        (
            "{N} shares {a} {things} equally among {b} {people}. How many {things} are left over?",
            "{a} {things} are put into {boxes} of {b}. How many {things} are left over?",
            "{b} {people} share {a} {things} so that all get the same number. How many {things} remain?",
            "{N} makes groups of {b} from {a} {things}. How many {things} are in no group?",
            *asked(
                (
                    "{b} {people} share {a} {things} equally",
                    "{a} {foods} are shared by {b} {people}",
                    "{N} [puts] {a} {things} into {boxes} of {b}",
                    "{a} {things} are packed {b} to a {bag}",
                    "{N} [gives] {b} {people} the same number of {things} from {a}",
                ),
                ("how many are left over", "how many {things} are left over", "what is left over"),
            ),
        ),
        ("Left over: a mod b",),
        "The number left over is {box}.",
    ),
    Story(
        "packing",
        3,
        _with_rest,
        (
            "{N} packs {a} {things} into {boxes} that hold {b} each. How many {boxes} does {he} need for all of them?",
            "A box holds {b} {things}. How many boxes are needed for {a} {things}?",
            "{a} {people} go by car. Each car takes {b} of them. How many cars are needed?",
            "{a} pupils sleep in rooms for {b}. How many rooms are needed?",
            *asked(
                ("a {bag} holds {b} {things}", "{b} {things} fit in one {bag}"),
                (
                    "how many {boxes} [does] {N} need for {a} {things}",
                    "how many {boxes} are needed for all {a} {things}",
                ),
            ),
        ),
        ("Full ones: a ÷ b", "One more for the rest: P + 1"),
        "The number needed is {box}.",
    ),
    Story(
        "full_boxes",
        2,
        _with_rest,
        (
            "{N} packs {a} {things} into {boxes} of {b}. How many full {boxes} does {he} get?",
            "A box holds {b} {things}. How many boxes can be filled with {a} {things}?",
            "{N} has {a} {money}. {A_thing} costs {b} {money}. How many {things} can {he} buy?",
            "How many {things} at {b} {money} each can {N} buy with {a} {money}?",
            *asked(
                ("{a_thing} costs ${b} and {N} [has] ${a}", "{things} cost ${b} each. {N} [has] ${a}"),
                ("how many {things} can {he} buy", "how many can {he} buy", "how many {things} can {he} afford"),
                condition=False,
            ),
        ),
        ("Full ones: a ÷ b",),
        "The number is {box}.",
    ),
    Story(
        "boxes",
        5,
        _boxes,
        (
            "{N} has {a} {boxes} with {b} {things} each and {c} single {things}. How many {things} does {he} have?",
            "There are {a} {boxes} of {b} {things} and {c} more {things}. How many {things} are there in all?",
            "{N} fills {a} {boxes} with {b} {things} each and has {c} {things} left. How many {things} did {he} have?",
            "A shop gets {a} {boxes} of {b} {things} each and already has {c}. How many {things} does it have then?",
            *asked(
                (
                    "{N} [has] {a} {boxes} with {b} {things} each and [buys] {c} more",
                    "{N} [buys] {a} {boxes} of {b} {foods} and [gets] {c} more",
                    "there are {a} {boxes} of {b} {things} and {c} loose {things}",
                    "{N} [has] {a} {boxes} with {b} {things} each. {he} [finds] {c} more",
                ),
                ("how many {things} is that", "how many {things} are there in total", "how many altogether"),
            ),
        ),
        ("In packs: a × b", "Total: P + c"),
        "The number of {things} is {box}.",
    ),
    Story(
        "stock",
        3,
        _stock,
        (
            "A shop has {a} {things}. It gets {b} {boxes} with {c} {things} each and sells {d}. How many are left?",
            "{N} had {a} {things}, bought {b} {boxes} of {c} and gave away {d}. How many {things} does {he} have now?",
            "There are {a} {things} in stock. {b} {boxes} of {c} arrive and {d} {things} are sold. "
            "How many remain in stock?",
        ),
        ("New: b × c", "Stock: a + P", "Left: Q - d"),
        "The number left is {box}.",
    ),
    Story(
        "bus",
        6,
        _loss_gain,
        (
            "A bus carries {a} people. At a stop {b} get off and {c} get on. How many people are on the bus now?",
            "There are {a} people on a train. {b} leave and {c} enter. How many people are on the train?",
            "{a} birds sit in a tree. {b} fly away and {c} come. How many birds are in the tree now?",
            "A library has {a} books on a shelf. {b} are lent and {c} come back. How many are on the shelf?",
            *asked(
                (
                    "{N} had {a} {things}, gave {b} away and bought {c} more",
                    "{N} [has] {a} {things}. {he} [loses] {b} and [finds] {c}",
                    "{N} had {a} {foods}. {he} ate {b} and got {c} more",
                    "{N} had {a} {things}, sold {b}, then bought {c} more",
                    "{N} [has] {a} {things}, [gives] {b} to {M} and [gets] {c} back",
                ),
                ("how many now", "how many {things} [does] {he} have now", "how many [does] {he} have"),
                condition=False,
            ),
        ),
        ("After leaving: a - b", "Now: P + c"),
        "The number now is {box}.",
    ),
    Story(
        "seats",
        8,
        _taken,
        (
            "A hall has {a} rows of {b} seats. {c} seats are taken. How many seats are free?",
            "There are {a} rows with {b} chairs each and {c} people sit down. How many chairs stay empty?",
            "A garden has {a} rows of {b} plants. {c} of the plants die. How many are left?",
            "{N} buys {a} {boxes} of {b} {things} and {c} of them are broken. How many {things} are good?",
            "A baker bakes {a} trays of {b} rolls and sells {c} rolls. How many rolls are left?",
            *asked(
                (
                    "{N} [has] {a} {boxes} with {b} {things} each. {he} [loses] {c}",
                    "{N} [buys] {a} {boxes} of {b} {foods} and [eats] {c}",
                    "{N} [has] {a} {boxes} of {b} {things} and [gives] {c} away",
                    "{N} [buys] {a} {boxes} with {b} {foods} each. {he} [eats] {c} of them",
                    "{N} bought {a} {boxes} with {b} {things} in each and sold {c}",
                    "{N} [has] {a} {boxes}, each with {b} {things}. {c} get lost",
                ),
                ("how many are left", "how many {things} [does] {he} have left", "how many {things} are left"),
                condition=False,
            ),
        ),
        ("All: a × b", "Left: P - c"),
        "The number is {box}.",
    ),
    Story(
        "legs",
        2,
        _legs,
        (
            "There are {a} cows and {b} hens on a farm. How many legs do they have?",
            "A farm has {a} sheep and {b} ducks. How many legs is that in all?",
            "{N} has {a} dogs and {b} birds. How many legs do the animals have together?",
            "How many legs do {a} horses and {b} chickens have altogether?",
            "{a} cars with 4 wheels and {b} bikes with 2 wheels are parked. How many wheels is that?",
            *asked(
                (
                    "there are {a} dogs and {b} ducks",
                    "{N} [sees] {a} cats and {b} birds",
                    "{N} [has] {a} cows and {b} hens",
                    "{a} sheep and {b} people are in a field",
                ),
                ("how many legs is that", "how many legs do they have in total", "how many legs are there"),
            ),
        ),
        ("Fours: a × 4", "Twos: b × 2", "Total: P + Q"),
        "The total is {box}.",
    ),
)
