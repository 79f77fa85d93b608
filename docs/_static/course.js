// The search shows an excerpt of each page that it found. It has to fetch the page for
// that, which browsers refuse, with an error, where the site is opened from a folder.
if (location.protocol === "file:") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}
