"""A run as one file that opens anywhere: `python -m dashboard report RUN -o report.html` (or .pdf).

command.py            the command line, and the errors it reports
contents.py           what a report contains, read from the store through the same modules as the pages
summary.py            the run in a few sentences
document.py           the HTML (report.html.jinja, report.css)
incident_sections.py  one section for each incident
tables.py             tables of bounded size
pictures.py           the figures of the pages, and the scripts that draw them (report.js)
printing.py           HTML to PDF, by the system's Chromium
atomic_file.py        a file that is written completely or not at all
"""
