{{ config(group='scores') }}

-- Table 1 of the paper, ours beside the paper's, a row per model in the order of the study's cells. A cell nobody has
-- measured is null.

select
    id,
    name as model,
    backbone,
    template,
    module,
    training_set,
    {% for benchmark, column in (('mt_bench', 'mt_bench'), ('open_llm_leaderboard', 'oll')) %}
    {% set of_it = "filter (where benchmark = '" ~ benchmark ~ "')" %}
    max(score) {{ of_it }} as {{ column }},
    max(low) {{ of_it }} as {{ column }}_low,
    max(high) {{ of_it }} as {{ column }}_high,
    bool_and(complete) {{ of_it }} as {{ column }}_complete,
    max(paper) {{ of_it }} as {{ column }}_paper,
    max(quoted_from) {{ of_it }} as {{ column }}_quoted_from,
    max(difference) {{ of_it }} as {{ column }}_difference,
    bool_or(outside) {{ of_it }} as {{ column }}_outside,
    max(gain) {{ of_it }} as {{ column }}_gain,
    max(p_corrected) {{ of_it }} as {{ column }}_p_corrected,
    max(note) {{ of_it }} as {{ column }}_note,
    {% endfor %}
from {{ ref('score_cells') }}
where "table" = 'table_1'
group by name, id, backbone, template, module, training_set
order by min(place)
