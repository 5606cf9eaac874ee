"""Where a search is watched from outside: Ray's metrics, trackers, dashboards. All of it listens to the ledger.

listeners       who is told of every event: each is dropped where it raises
naming          how a trial is called
dashboard_rows  a row in the Ray dashboard for every running trial
gauges          a search as gauges on Ray's metrics port
trackers/       TensorBoard, MLflow, Weights & Biases, trackio: one file each
boards          the dashboards that `tuner dashboard` opens on this machine
prometheus.yml  a scrape configuration, and grafana.json, a dashboard over it
"""
