"""Training without Ray: an iterator of reports around one state that is saved whole.

loop                                 `fit` and `Training`: steps, reports, the weights of record
batches, data_order, augment         which image comes when, and what is drawn for it on its device
optim, precision, micro_batches, compiler    one step: optimiser, number formats, passes, torch.compile
memory, memory_profile               what a step needs, predicted and measured
checkpoint, weights                  the state that training continues from, and the weights that are kept
evaluation                           bits/dim and nats of a split, exact or a bound
workers                              several processes that train one model
epoch_report, running_sums, timers   what a report holds, and how it is measured
"""
