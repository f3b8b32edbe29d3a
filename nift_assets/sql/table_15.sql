{{ config(group='scores') }}

-- Table 15 of the paper: the Open LLM Leaderboard task by task, of all rows of Table 1 that it was run on.

select
    id, name, backbone, module, training_set, benchmark,
    score, low, high, paper, quoted_from, difference, outside, expected, missing, complete, gain, p,
    p_corrected, judge, note
from {{ ref('score_cells') }}
where "table" = 'table_15'
order by place
