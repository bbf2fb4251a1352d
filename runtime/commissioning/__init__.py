"""The first hour on site: draft a site file, look the machine over, measure the plant, keep a signed report."""
