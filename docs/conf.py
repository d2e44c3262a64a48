"""The site: `make site`. Sources are README.md and the pages of docs/, benchmarks/ and profiles/ as they stand."""

project = "FBNet workflow"
copyright = "2026, the FBNet workflow authors"
root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "NOTICE.md", "docs/*.md", "benchmarks/README.md", "profiles/README.md"]
extensions = ["myst_parser"]
myst_heading_anchors = 4  # as GitHub makes them
suppress_warnings = ["misc.highlighting_failure", "myst.header"]
html_theme = "furo"
html_title = project
html_copy_source = False
html_static_path, html_css_files = ["_static"], ["site.css"]
pygments_style, pygments_dark_style = "tango", "monokai"
