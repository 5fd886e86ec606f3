"""Portraits rendered procedurally: faces of nobody, for demos and tests.

`ffd_continual.scenarios.studio.portrait` holds the two functions to call: `render_portrait` and `studio_faces`.
"""
