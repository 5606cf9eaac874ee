"""Takes a search from a laptop to a cluster: submission, its payload, manifests, doctor.

parcel.py    what is sent: the three packages, the search file, and the files and modules that it names
payload.py   the exact job that is submitted
jobs.py      Ray's Jobs API: submit, follow, read back, fetch a file
streaming.py a job's log, which comes in pieces, as lines
job_log.py   the log of a job, and the file beside it for the events of its search
events.py    reads and follows that file through the dashboard
searches.py  reads searches from the events of their jobs
errands.py   has the cluster do what needs a run folder: requests to a driver, files to fetch
errand.py    the other side of that, a short Ray job
kuberay.py   the same search as a RayJob manifest
slurm.py     the same search as a Slurm batch script
probe.py     what one machine has, as facts
findings.py  judges those facts: green, amber or red, and the remedy
doctor.py    examines this machine, a cluster, its storage, the hub
"""
