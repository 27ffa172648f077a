"""Do masks lie on the structures that they explain, and more so than maps that know nothing of the output?"""
