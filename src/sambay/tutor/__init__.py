"""A tutor for school mathematics: problems by topic and level, hints, checked answers and workings, whole classes.

Nothing here knows of HTTP, and nothing is kept: a learner's progress comes with each question and goes back with the
answer.

    topics      what can be practised, and how hard a problem is
    solution    worked steps, and the hints that lead to them
    reading     what a learner types -> LaTeX
    judge       whether two values are equal: math-verify, in a process of its own (`worker`)
    feedback    which mistake it is, in words
    working     the learner's own steps, line by line
    skill       what a learner can do, and how hard the next problem shall be
    solving     a problem of one's own, solved by the model with a vote
    assess      a table of answers, graded; classroom: its files
"""
