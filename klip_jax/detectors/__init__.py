"""Out-of-distribution detectors, one file each; bigger is more anomalous."""
