"""Other people's recurrences (and attention) as mixers of the same models, one file each.

Each keeps the contract of a mixer, runs anywhere in plain torch, and on a GPU through the kernels of
flash-linear-attention where those exist (`statemix.nn.rivals.operations`). `statemix.nn.MIXERS` names them.
"""
