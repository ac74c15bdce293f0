"""The figures of a report: functions of the snapshot that return a `Chart`. `page_builder` lists them in order.

chart            `Chart`, colours and axes that all figures share
key_axes         the searched keys as axes
curves           learning curves
fronts           fronts of two objectives
importances      which keys mattered
parallel         parallel coordinates
slices           slices and contours
timeline         when each trial ran, by worker
"""
