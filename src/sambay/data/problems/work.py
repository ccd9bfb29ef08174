"""The steps of written arithmetic, the same wherever a family needs them.

`Work` collects lines and returns results, so a family's solution reads as the computation itself. No line
needs more than a one-digit table fact and a carry, and every column's line carries the running result, so
that the next line copies it and prepends one digit::

    347 + 586:                          523 - 187: 5 > 1
    7 + 6 = 13: 3, carry 1              3 - 7: borrow 1, 13 - 7 = 6: 6
    4 + 8 + 1 = 13: 33, carry 1         2 - 8 - 1: borrow 1, 12 - 8 - 1 = 3: 36
    3 + 5 + 1 = 9: 933                  5 - 1 - 1 = 3: 336
    347 + 586 = 933                     523 - 187 = 336

    347 × 6:                            938 ÷ 7:
    7 × 6 = 42: 2, carry 4              9 ÷ 7 = 1 rest 2: 1
    4 × 6 + 4 = 24 + 4 = 28: 82, carry 2    23 ÷ 7 = 3 rest 2: 13
    3 × 6 + 2 = 18 + 2 = 20: 2082       28 ÷ 7 = 4 rest 0: 134
    347 × 6 = 2082                      938 ÷ 7 = 134

The last column writes its whole total, the others one digit and a carry. A number that has run out of digits
counts as 0. Facts that a pupil knows by heart take one line: sums to 20, differences within 20, the 10 × 10
table and its divisions, and powers of ten. Zeros at the end of factors are left out and put back at the end.
"""

from __future__ import annotations

_POWERS = (10, 100, 1000)


def signed(n: int) -> str:
    """Write a number as a right operand: negative ones in brackets."""
    return str(n) if n >= 0 else f"({n})"


def compare(a: int, b: int) -> str:
    """Compare two non-negative numbers as written: by length, then by the first digit that differs.

    Returns:
        The comparison in words and signs, such as "5 = 5, 2 < 8" or "2 < 3 digits".
    """
    x, y = str(a), str(b)
    if len(x) != len(y):
        return f"{len(x)} {'<' if len(x) < len(y) else '>'} {len(y)} digits"
    parts = []
    for p, q in zip(x, y, strict=True):
        parts.append(f"{p} {'=' if p == q else '<' if p < q else '>'} {q}")
        if p != q:
            break
    return ", ".join(parts)


class Work:
    """The lines of a solution, and the operations that write them."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Write a line of explanation."""
        self.lines.append(line)

    def text(self) -> str:
        """Return all lines as one text."""
        return "\n".join(self.lines)

    def add(self, a: int, b: int) -> int:
        """Write and return a + b, of any signs."""
        if not a or not b:
            self.say(f"{a} + {signed(b)} = {a + b}")
        elif a < 0 and b < 0:
            self.say(f"{a} + {signed(b)} = -({-a} + {-b})")
            self.say(f"{a} + {signed(b)} = -{self.add(-a, -b)}")
        elif b < 0:
            self.say(f"{a} + {signed(b)} = {a} - {-b}")
            self.sub(a, -b)
        elif a < 0:
            self.say(f"{a} + {b} = {b} - {-a}")
            self.sub(b, -a)
        elif a + b <= 20:
            self.say(f"{a} + {b} = {a + b}")
        else:
            self._add_columns(a, b)
        return a + b

    def _add_columns(self, a: int, b: int) -> None:
        self.say(f"{a} + {b}:")
        x, y = str(a)[::-1], str(b)[::-1]
        columns = max(len(x), len(y))
        x, y = x.ljust(columns, "0"), y.ljust(columns, "0")
        done, carry = "", 0
        for at in range(columns):
            total = int(x[at]) + int(y[at]) + carry
            line = f"{x[at]} + {y[at]}{' + 1' if carry else ''} = {total}: "
            carry = total // 10
            if at == columns - 1:
                self.say(f"{line}{total}{done}")
            else:
                done = f"{total % 10}{done}"
                self.say(f"{line}{done}{', carry 1' if carry else ''}")
        self.say(f"{a} + {b} = {a + b}")

    def sub(self, a: int, b: int) -> int:
        """Write and return a - b, of any signs."""
        if not a or not b or a == b:
            self.say(f"{a} - {signed(b)} = {a - b}")
        elif b < 0:
            self.say(f"{a} - {signed(b)} = {a} + {-b}")
            self.add(a, -b)
        elif a < 0:
            self.say(f"{a} - {b} = -({-a} + {b})")
            self.say(f"{a} - {b} = -{self.add(-a, b)}")
        elif a <= 20 and b <= 20:
            self.say(f"{a} - {b} = {a - b}" if a > b else f"{a} - {b} = -({b} - {a}) = {a - b}")
        else:
            self.say(f"{a} - {b}: {compare(a, b)}")
            if a > b:
                self._sub_columns(a, b)
            else:
                self.say(f"{a} - {b} = -({b} - {a})")
                self._sub_columns(b, a)
                self.say(f"{a} - {b} = {a - b}")
        return a - b

    def _sub_columns(self, a: int, b: int) -> None:
        x, y = str(a)[::-1], str(b)[::-1]
        y = y.ljust(len(x), "0")
        done, borrow = "", 0
        for p, q in zip(x, y, strict=True):
            taken = f"{q}{' - 1' if borrow else ''}"
            rest = int(p) - int(q) - borrow
            borrow = int(rest < 0)
            if borrow:
                rest += 10
                line = f"{p} - {taken}: borrow 1, 1{p} - {taken} = {rest}: "
            else:
                line = f"{p} - {taken} = {rest}: "
            done = f"{rest}{done}"
            self.say(f"{line}{done}")
        self.say(f"{a} - {b} = {a - b}")

    def mul(self, a: int, b: int) -> int:
        """Write and return a × b, of any signs."""
        if a < 0 or b < 0:
            self.mul(abs(a), abs(b))
            self.say(f"{a} × {signed(b)} = {a * b}")
            return a * b
        if min(a, b) <= 1 or max(a, b) <= 10 or a in _POWERS or b in _POWERS:
            self.say(f"{a} × {b} = {a * b}")
        elif a % 10 == 0 or b % 10 == 0:
            # Without the zeros at the end first; they come back in the last line.
            self.mul(int(str(a).rstrip("0")), int(str(b).rstrip("0")))
            self.say(f"{a} × {b} = {a * b}")
        elif len(str(a)) < len(str(b)):
            self.say(f"{a} × {b} = {b} × {a}")
            self._mul_ordered(b, a)
        else:
            self._mul_ordered(a, b)
        return a * b

    def _mul_ordered(self, a: int, b: int) -> None:
        if b < 10:
            self._mul_columns(a, b)
            return
        places = [digit * 10**at for at, digit in enumerate(map(int, reversed(str(b)))) if digit][::-1]
        self.say(f"{a} × {b}: {b} = {' + '.join(map(str, places))}")
        total = self.mul(a, places[0])
        for place in places[1:]:
            total = self.add(total, self.mul(a, place))
        self.say(f"{a} × {b} = {a * b}")

    def _mul_columns(self, a: int, b: int) -> None:
        self.say(f"{a} × {b}:")
        digits = str(a)[::-1]
        done, carry = "", 0
        for at, digit in enumerate(digits):
            product = int(digit) * b
            total = product + carry
            more = f" + {carry} = {product} + {carry}" if carry else ""
            line = f"{digit} × {b}{more} = {total}: "
            carry = total // 10
            if at == len(digits) - 1:
                self.say(f"{line}{total}{done}")
            else:
                done = f"{total % 10}{done}"
                self.say(f"{line}{done}{f', carry {carry}' if carry else ''}")
        self.say(f"{a} × {b} = {a * b}")

    def power(self, base: int, exponent: int) -> int:
        """Write and return base^exponent, one factor a step; the exponent is at least 1."""
        self.say(f"{signed(base)}^{exponent} = {' × '.join([signed(base)] * exponent)}")
        result = base
        for _ in range(exponent - 1):
            result = self.mul(result, base)
        return result

    def divide(self, a: int, b: int) -> tuple[int, int]:
        """Write a ÷ b and return quotient and rest.

        Negative numbers are divided without their signs; the quotient gets its sign where the rest is 0.
        """
        if a < 0 or b < 0:
            quotient, rest = self.divide(abs(a), abs(b))
            quotient = quotient if (a < 0) == (b < 0) else -quotient
            if not rest:
                self.say(f"{a} ÷ {signed(b)} = {quotient}")
            return quotient, rest
        quotient, rest = divmod(a, b)
        result = f"{a} ÷ {b} = {quotient}{f' rest {rest}' if rest else ''}"
        table = quotient <= 10 and b <= 10
        by_power = b in _POWERS and (rest == 0 or quotient < 10)
        if table or by_power or b == 1 or a == b or a < b:
            self.say(result)
            return quotient, rest
        if a % 10 == 0 and b % 10 == 0 and rest == 0:
            self.say(f"{a} ÷ {b} = {a // 10} ÷ {b // 10}")
            self.divide(a // 10, b // 10)
        else:
            self._long_division(a, b)
        self.say(result)
        return quotient, rest

    def _long_division(self, a: int, b: int) -> None:
        self.say(f"{a} ÷ {b}:")
        large = b > 10
        if large:
            # The table takes the guessing out of a divisor of two digits.
            self.say(f"Multiples of {b}: {', '.join(str(b * k) for k in range(1, 10))}")
        digits = str(a)
        first = next(at for at in range(1, len(digits) + 1) if int(digits[:at]) >= b)
        chunk, done = int(digits[:first]), ""
        for following in [*digits[first:], ""]:
            quotient, rest = divmod(chunk, b)
            if large and quotient:
                self.sub(chunk, quotient * b)
            done = f"{done}{quotient}"
            self.say(f"{chunk} ÷ {b} = {quotient} rest {rest}: {done}")
            chunk = int(f"{rest}{following}")

    def reduce(self, top: int, bottom: int) -> tuple[int, int]:
        """Reduce a fraction to lowest terms: the primes of the denominator are tried on both numbers, in order.

        A common factor divides the denominator, so when its primes are through nothing is left to cancel::

            18/48: 48 = 6 × 8: try 2, 3
            ÷ 2: 8, 8: yes          the last digits
            ...                     18 ÷ 2 and 48 ÷ 2
            18/48 = 9/24
            ÷ 2: 9: no
            ÷ 3: 9, 2 + 4 = 6: yes  the sums of the digits
            ...
            9/24 = 3/8
            ÷ 3: 3, 8: no
            Lowest terms: 3/8

        Args:
            top: The numerator, of any sign.
            bottom: The denominator, positive.

        Returns:
            Numerator and denominator in lowest terms.
        """
        if top == 0:
            self.say(f"0/{bottom} = 0")
            return 0, 1
        # The sign waits outside: the divisions stay those of the tables.
        sign, top = "-" if top < 0 else "", abs(top)
        while top % 10 == 0 and bottom % 10 == 0:
            self.say("÷ 10: 0, 0: yes")
            top, bottom = self._cancel(sign, top, bottom, 10)
        if top > 1 and bottom > 1:
            shown, primes = _primes(bottom)
            self.say(f"{sign}{top}/{bottom}: {shown}try {', '.join(map(str, primes))}")
            for prime in primes:
                while top > 1 and bottom > 1 and self._both(top, bottom, prime):
                    top, bottom = self._cancel(sign, top, bottom, prime)
        if bottom == 1:
            self.say(f"{sign}{top}/1 = {sign}{top}")
        else:
            self.say(f"Lowest terms: {sign}{top}/{bottom}")
        return (-top if sign else top), bottom

    def _both(self, top: int, bottom: int, prime: int) -> bool:
        """Write whether a prime divides both numbers, with what shows it."""
        shown = [_evidence(top, prime)]
        if top % prime == 0:
            shown.append(_evidence(bottom, prime))
        both = top % prime == 0 and bottom % prime == 0
        self.say(f"÷ {prime}: {', '.join(shown)}: {'yes' if both else 'no'}")
        return both

    def _cancel(self, sign: str, top: int, bottom: int, factor: int) -> tuple[int, int]:
        """Divide both numbers by a common factor."""
        upper, lower = top // factor, bottom // factor
        if factor > 10:
            # The multiples have just been counted.
            self.say(f"{top} ÷ {factor} = {upper}")
            self.say(f"{bottom} ÷ {factor} = {lower}")
        else:
            self.divide(top, factor)
            self.divide(bottom, factor)
        self.say(f"{sign}{top}/{bottom} = {sign}{upper}/{lower}")
        return upper, lower


def _primes(number: int) -> tuple[str, list[int]]:
    """Return the products that show the primes of a number, such as "48 = 6 × 8: ", and the primes in order."""
    shown: list[str] = []
    primes: set[int] = set()
    left = [number]
    while left:
        n = left.pop()
        if n <= 12:
            primes.update(p for p in (2, 3, 5, 7, 11) if n % p == 0)
        elif factor := _split(n):
            shown.append(f"{n} = {factor} × {n // factor}")
            left += [n // factor, factor]
        else:
            primes.add(n)
    return (f"{', '.join(shown)}: " if shown else ""), sorted(primes)


def _split(n: int) -> int:
    """Return a factor of a number above 12, or 0: from the 12 × 12 table if it can be, else a small one."""
    table = next((f for f in range(12, 1, -1) if n % f == 0 and f <= n // f <= 12), 0)
    if table:
        return table
    return next((f for f in (10, 2, 5, 3, 7, *range(11, n, 2)) if n % f == 0 and f * f <= n), 0)


def _evidence(n: int, prime: int) -> str:
    """Write what shows whether a prime divides a number: last digit, sum of digits, a rest, or multiples."""
    if prime in (2, 5):
        return str(n % 10)
    if prime == 3:
        digits = [int(digit) for digit in str(n)]
        return str(n) if n < 10 else f"{' + '.join(map(str, digits))} = {sum(digits)}"
    if n < prime:
        return f"{n} < {prime}"
    if prime == 7:
        # Seventies are taken off first: the table does the rest.
        seventies = 70 * (n // 70) if n > 70 else 0
        small = n - seventies
        taken = f"{n} - {seventies} = {small}, " if seventies else ""
        quotient, rest = divmod(small, 7)
        return f"{taken}{small} ÷ 7 = {quotient}{f' rest {rest}' if rest else ''}"
    return " ".join(str(k) for k in range(prime, n + prime, prime))
