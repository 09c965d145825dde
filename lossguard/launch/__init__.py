"""`lossguard launch`: any command, watched through the tracker that it logs to.

The child's hooks (`hooks`) append what the tracker is given to a journal. The launcher, the child's parent, makes rows
of it, records and delivers them.
"""
