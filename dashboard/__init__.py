"""The Streamlit app: what the store holds, as pages that follow the runs while they go on.

app.py names the pages (views/), data.py and a few others read the store, charts.py makes figures out of values,
figure.py keeps a figure on a page, words.py turns values into what people read, server.py serves it all.
"""
