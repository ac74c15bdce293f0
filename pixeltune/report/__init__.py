"""`pixeltune report`: one HTML file about a search, which needs no network, and its figures for a paper.

snapshot      the search, read once, so that all parts of a report agree
sections      tables and sentences as plain data: summary, leaderboard, published results, outcomes, galleries
figures       one function a figure; each returns a `Chart`: a plotly figure, or the reason why there is none
texts         numbers and keys as text
page_builder  the page with all parts (page/page.html, style.css, script.js and plotly.js)
static_figures  the figures as SVG, PDF and PNG, and stills for print
model_card    the README of an exported model
"""
