"""Monitoring: scrape targets, dashboards, alerts, and their receivers."""
