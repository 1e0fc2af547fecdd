for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headers = Array.from(table.tHead.rows[0].cells);
  const key = (row, i) => row.cells[i].dataset.v ?? row.cells[i].textContent;
  headers.forEach((header, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const numeric = header.classList.contains("n");
      const up = header.ariaSort ? header.ariaSort === "descending" : !numeric;
      headers.forEach((other) => { other.ariaSort = null; });
      header.ariaSort = up ? "ascending" : "descending";
      const compare = (a, b) => {
        const x = key(a, i), y = key(b, i);
        if (!numeric) return (up ? 1 : -1) * x.localeCompare(y, undefined, { numeric: true });
        const p = parseFloat(x), q = parseFloat(y);
        if (isNaN(p) || isNaN(q)) return isNaN(p) - isNaN(q);
        return up ? p - q : q - p;
      };
      body.append(...Array.from(body.rows).sort(compare));
    });
  });
}
