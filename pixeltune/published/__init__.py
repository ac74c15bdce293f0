"""Published likelihoods and speeds, and whether a number of ours may be compared with them.

table            published.csv: one row a published number, with its source
comparability    whether two numbers are of the same task, and why not
nearest          the published results nearest to a row, as lines for people
compare          rows of ours next to published ones, as pandas tables
speeds           published_speeds.csv: published sampling speeds
"""
