"""The pages of the dashboard. Each page.py is a Streamlit script whose functions stand in page order."""
