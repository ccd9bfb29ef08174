// Before the first paint, so that no light page flashes in a dark room; hence no module.
(() => {
  try {
    const theme = localStorage.getItem("sambay-theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage is forbidden: the system decides.
  }
})();
