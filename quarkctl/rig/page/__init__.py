"""The page of a rig: stations live, runs, reports and trends in a browser."""
