"""Pages of HTML that ask for nothing: one file each, light and dark.

document  what every page has: its head, its colours, and how text that others wrote becomes text
search    the report of a search
answers   its section with what the model says
report.js draws its plots and sorts its table
"""
