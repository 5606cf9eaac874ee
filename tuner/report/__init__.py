"""Makes what people see, from records alone: no ray, no torch, and rich only where a terminal is written to.

formatting numbers as short words          lines    styled text, plain or in colour
curve     sparklines and the text plot     table    the leaderboard
progress  share done and time left         standing compares the best with the recipe, in a sentence
view      base class of the next two
redraw    rich's display, in a window that gets narrower
live      the live view                    plain    one line an event, where there is no terminal
notebook  the live view in a notebook
showing   which view a running search gets; a run folder's name, paths and headings
summary   the end of a search              trial    all that is known of one trial
plan      what would run                   spaces   the search spaces
outlook   what a search will take
base      a base before anything trains on it
data      rows as the model sees them      data_page the same as one page of HTML
runs      the runs of a folder             compare  two searches beside each other
found     what a search found, in words    facts    what its report says, in every format
exports   the report as Markdown, CSV and JSON
figures/  its plots, one file each         page/    its page of HTML
counter   how far something is             machine   the same facts as strict JSON
evaluation adapters side by side on test rows
"""
