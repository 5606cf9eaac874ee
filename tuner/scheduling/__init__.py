"""When a trial ends before its budget: ASHA, and rules that look at one curve.

rules/    one file a rule: curve in, verdict out, no Ray
ladder.py where the rungs lie and where trials are evaluated
wire.py   how a report travels in a Ray result
"""
