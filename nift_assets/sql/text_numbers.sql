{{ config(group='scores') }}

-- Numbers that stand in the paper's text only, in its sections 5 and 6, ours beside them.

select
    "table" as section, name, title, backbone, module, training_set, pairs, benchmark,
    score, low, high, paper, quoted_from, difference, outside, expected, missing, complete, gain, p,
    p_corrected, judge, note
from {{ ref('score_cells') }}
where "table" like 'section_%'
order by "table", place
