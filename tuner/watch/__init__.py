"""Shows a search outside of its terminal: Ray's metrics, trackers, dashboards. All of it follows the ledger's events.

listeners       passes every event on to others, each of which is dropped when it raises
naming          the title of a trial
dashboard_rows  every trial as a task in the Ray dashboard, from the driver's side; trial_row, that task
job_message     a submitted search's progress, in its job on the Jobs page
gauges          a search as gauges on Ray's metrics port
trackers/       TensorBoard, MLflow, Weights & Biases, trackio: one file each
metrics         Prometheus and Grafana on these gauges, run for `tuner dashboard --metrics`
boards          the dashboards that `tuner dashboard` serves on this machine
study_page      the study as the Optuna dashboard shows it: the journal, and what the ledger knows beside it
prometheus.yml  a scrape configuration, and grafana.json, a dashboard over it
"""
