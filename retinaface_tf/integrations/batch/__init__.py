"""Run `detect` on millions of photos, on the machines of a Ray cluster or the cores of one machine.

The work is cut into parts. A part is a list of photos whose rows become one Parquet file, written whole or not at all
under a name that the part alone decides. So a part that is done twice is there once, and one that is there is done.
"""
