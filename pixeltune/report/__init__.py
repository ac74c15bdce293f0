"""`pixeltune report`: one HTML file about a search, which needs no network, and its figures for a paper.

snapshot      the search, read once, so that all parts of a report tell the same
facts         tables and sentences as plain data: summary, board, published, outcomes, rerun, environment, pictures
figures       one function a figure, each a Chart: a plotly figure, or in words why there is none
page          all of it in one file: page.html, style.css, script.js and plotly.js within
papers        the figures as PNG
"""
