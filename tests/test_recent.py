"""What was used last is kept, within bounds of number and size."""

import threading

from sambay.recent import Recent


def test_the_least_recently_used_goes_first():
    recent = Recent(3, 100)
    for name in "abc":
        recent.keep(name, name.upper(), 1)
    assert recent.find("a") == "A"
    recent.keep("d", "D", 1)
    assert [recent.find(name) for name in "abcd"] == ["A", None, "C", "D"]
    assert (len(recent), recent.size) == (3, 3)


def test_sizes_are_counted():
    recent = Recent(100, 10)
    recent.keep("a", 1, 4)
    recent.keep("b", 2, 4)
    recent.keep("c", 3, 6)
    assert [recent.find(name) for name in "abc"] == [None, 2, 3]
    recent.keep("c", 4, 1)  # in place of the one before
    assert (recent.find("c"), recent.size) == (4, 5)
    assert recent.drop("b")
    assert not recent.drop("b")
    assert (len(recent), recent.size) == (1, 1)


def test_what_is_too_large_alone_is_not_kept_and_costs_no_other():
    recent = Recent(100, 10)
    recent.keep("a", 1, 10)
    recent.keep("b", 2, 11)
    assert (recent.find("a"), recent.find("b")) == (1, None)
    recent.keep("a", 3, 11)  # nor is the old value, which is none any more
    assert (recent.find("a"), len(recent), recent.size) == (None, 0, 0)


def test_what_has_no_size_counts_as_one():
    recent = Recent(2, 0)
    for name in "abc":
        recent.keep(name, 1, 0)
    assert len(recent) == 2
    assert recent.drop("c")


def test_threads():
    recent = Recent(5, 50)

    def work(seed):
        for i in range(2000):
            recent.keep((seed * i) % 17, i, i % 13)
            recent.find(i % 17)
            recent.drop(i % 11)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(recent) <= 5
    assert recent.size == sum(size for _, size in recent._kept.values()) <= 50
