"""What several scripts of experiments/ share; a script is thin and reads like its entry
in the lab note (RESULTS.md).

problems, benchmarks     images, scanner and prior; the images settings are chosen on
setup, batches           what a config builds; a function of one image over many
detectors, runs          the detectors of `detection.py`; running them all
scores, summary, aurocs  numbers of every image, and what they say
tables, detection_tables, alarms, pictures
bound_tasks              what `supervised_bound.py` learns from
"""
