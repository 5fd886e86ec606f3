"""The report: data, charts, sections, pages."""
