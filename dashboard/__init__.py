"""The Streamlit app: what the store holds, as pages that follow runs live, and a run as a file.

app.py         lists the pages; server.py serves them
views/         the pages
data/          reads from the store, and values derived from them
figures/       plotly figures from values, and the component that shows them
report/        a run as one HTML or PDF file
formatting.py  values and times as text
"""
