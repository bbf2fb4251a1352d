"""The site file: read, checked, and compiled with the device maps into the program of the core."""
