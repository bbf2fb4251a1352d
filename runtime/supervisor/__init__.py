"""`tidegate run`: the processes of one site, kept alive, watched from outside, ended in the safe order."""
