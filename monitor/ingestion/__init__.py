"""Ingestion of what trainers send, from the parsed request to the store and the detection.

A report goes one way, in `reports`: parse (`columns`), lock (`run_cache`), drop what is known, store, detect and decide
(`monitor.detection`), write the effects (`detection_state`, `effects`), update the status (`run_status`), answer.
`queue` groups reports into transactions. Everything else that a trainer sends is in `runs` and `answers`.
"""
