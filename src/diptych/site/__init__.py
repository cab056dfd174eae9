"""The site: Diptych in a browser, as static files. What Python makes for it is made when it is first asked for."""

from diptych.site.files import site_files, write_site

__all__ = ["site_files", "write_site"]
