"""What `sambay bench` measures: the machine, and how near a model comes to what the machine can do.

Every figure is taken beside a measurement of what bounds it, in turns, so that a busy neighbour slows both and the
share of one in the other stays.
"""
