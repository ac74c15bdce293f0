"""The figures of a report: functions of the snapshot that return a `Chart`. `report/build.py` lists them in order.

chart            `Chart`, colours and axes that all figures share
keys             the searched keys as axes
curves           learning curves
fronts           fronts of two objectives
importances      which keys mattered
parallel         parallel coordinates
slices           slices and contours
timeline         when each trial ran, by worker
"""
