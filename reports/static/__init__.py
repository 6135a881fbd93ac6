"""Static rendering: panels and dashboards as SVG and PNG, by matplotlib without pyplot and without a browser."""
