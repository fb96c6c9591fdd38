"""The page of `latprune report`, a jinja2 template: HTML with its style inside, no scripts, nothing fetched."""

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2430; max-width: 60em; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; margin-bottom: 0; }
h2 { font-size: 1.1em; margin-top: 2em; border-bottom: 1px solid #aab3bf; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: 0.15em 1.2em 0.15em 0; vertical-align: top; }
th { font-weight: 600; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
tr.part td { color: #737c88; }
.yes { color: #2f8a5a; font-weight: 600; }
.no { color: #a8324a; font-weight: 600; }
.faint { color: #737c88; }
.bar { background: #d9dee5; width: 20em; height: 0.8em; margin-top: 0.4em; }
.bar div { background: #2f6db5; height: 100%; }
pre { background: #f2f4f7; padding: 0.8em; white-space: pre-wrap; overflow-wrap: anywhere; }
td.name { overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>{% if missed %}<span class="no">missed: {{ missed | join(", ") }}</span>\
{% else %}<span class="yes">every promise was kept</span>{% endif %}
{%- if budgets %} · {{ budgets | join(" · ") }}{% endif %}</p>

<h2>Before and after</h2>
<table id="figures">
<tr><th></th><th class="n">before</th><th class="n">after</th><th class="n">ratio</th></tr>
{% for row in figures %}
<tr{% if row.part %} class="part"{% endif %}><td>{{ row.name }}</td><td class="n">{{ row.before }}</td>\
<td class="n">{{ row.after }}</td><td class="n">{{ row.ratio }}</td></tr>
{% endfor %}
</table>
<p class="faint">Latencies are of one inference. The measured ones were taken by turns with the unpruned network, ±
their relative noise{% if memory_of %}; memory is counted as {{ memory_of }} lays it out{% endif %}.</p>

<h2>Checks</h2>
<table id="checks">
{% for check in checks %}
<tr><td class="{{ "yes" if check.passed else "no" }}">{{ "✓" if check.passed else "✗" }}</td>\
<td>{{ check.name }}</td><td>{{ check.detail }}</td></tr>
{% endfor %}
</table>

{% if rounds %}
<h2>How the widths were found</h2>
<table id="rounds">
<tr><th>round</th><th class="n">importance kept</th><th class="n">gap</th>\
<th class="n">measured, of the unpruned</th></tr>
{% for row in rounds %}
<tr><td>{{ loop.index }}</td><td class="n">{{ row.kept }}</td><td class="n">{{ row.gap }}</td>\
<td class="n">{{ row.measured }}</td></tr>
{% endfor %}
</table>
<p class="faint">{{ how }}. The gap is how much less importance any other plan within the budget
could have lost, where that was proved.</p>
{% endif %}

<h2>Widths: {{ channels_kept }} of {{ channels }} channels are kept</h2>
<table id="widths">
<tr><th>group</th><th class="n">before</th><th class="n">after</th><th></th></tr>
{% for group in groups %}
<tr><td class="name">{{ group.name }}</td><td class="n">{{ group.size }}</td><td class="n">{{ group.width }}</td>\
<td><div class="bar" title="{{ group.share }}"><div style="width: {{ group.share_css }}"></div></div></td></tr>
{% endfor %}
</table>
{% for line in beside %}
<p>{{ line }}</p>
{% endfor %}

<h2>Made with</h2>
<table id="made">
{% for name, value in made %}
<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}
</table>

<h2>To make it again</h2>
{% if command %}
<pre>{{ command }}</pre>
<p class="faint">TASK is what the run knew as {{ task }}. Shapes given with --input or --batch are not in the
run's files.</p>
{% else %}
<p>The run's state.json is not here, and with it the command is gone.</p>
{% endif %}
</body>
</html>
"""
