"""Clusters: their files, their jobs, and the Ray backend that runs the trials of a search.

cluster_file                                     a cluster file as data, read safely
checks_file, checks_common, checks_cloud, checks_rayjob   its checks, by kind
aws_setup                                        what an AWS account needs before `ray up`
capacity                                         nodes that may still start, and what the cluster costs
ssh_tunnel, dashboard_client, jobs               submitting a search as a job, following it, stopping it
spot_agent                                       the notice that a spot machine is taken away
ray_backend                                      `RayBackend`: the backend of `pixeltune.search.run.run_search`
launch                                           `pixeltune.run_search`: a search from Python
"""
