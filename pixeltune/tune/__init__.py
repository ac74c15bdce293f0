"""Trials under Ray Tune and Ray Train: thin adapters around `pixeltune.search`.

runner           `TuneRunner`: runs of Tune, one after another, until no trial is left
adapters         searcher, scheduler, callback and stopper in Tune's interfaces
run_state        `TuneRunState`: the state that these adapters share during one run of Tune
trainables       the process of a trial: one worker under Tune, or several under Train
watchdog         which trials are silent for too long, and a launcher that is stuck itself
hang_recovery    ends such trials, and frees what they leave reserved
preemption       nodes that a cloud takes away, and trials whose parent process is gone
ray_session      connecting to Ray, and the resources that a trial gets
ray_address      which Ray a command uses
other_launches   which other launches train on this machine's CPUs
"""
